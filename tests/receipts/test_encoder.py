"""The encoder that is fine-tuned as a classifier, on tiny random checkpoints laid out as on the hub."""

import shutil
from pathlib import Path
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from forgetmenot.errors import UserError
from forgetmenot.receipts.encoder_model import EncoderClassifier
from forgetmenot.receipts.fit import classifier_maker
from forgetmenot.receipts.settings import ReceiptSettings

WORDS = {0: ("bad", "poor", "dull"), 1: ("good", "fine", "great")}
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "film", *WORDS[0], *WORDS[1]]
TEXTS = [(f"a {word} film",) for _ in range(16) for words in WORDS.values() for word in words]
LABELS = np.array([label for _ in range(16) for label, words in WORDS.items() for _ in words], dtype=np.int64)
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 40,
}


@pytest.fixture(scope="session", params=["electra", "roberta"])
def encoder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a pre-trained kind of model: ELECTRA's discriminator, RoBERTa's language model."""
    from transformers import (
        BertTokenizer,
        ElectraConfig,
        ElectraForPreTraining,
        RobertaConfig,
        RobertaForMaskedLM,
    )

    folder = tmp_path_factory.mktemp("encoders") / str(request.param)
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    torch.manual_seed(0)
    size = {**SIZES, "vocab_size": len(VOCABULARY), "pad_token_id": 0}
    if request.param == "electra":
        ElectraForPreTraining(ElectraConfig(**size, embedding_size=16)).save_pretrained(folder)
    else:
        RobertaForMaskedLM(RobertaConfig(**size, type_vocab_size=2)).save_pretrained(folder)
    BertTokenizer(str(folder / "vocab.txt"), model_max_length=32).save_pretrained(folder)
    return folder


def settings(folder: Path, **others: Any) -> ReceiptSettings:
    return ReceiptSettings(model=str(folder), **{"epochs": 10, "learning_rate": 1e-2, **others})


def fitted(folder: Path, **others: Any) -> EncoderClassifier:
    model = EncoderClassifier(settings(folder, **others))
    model.fit(TEXTS, LABELS, 2)
    return model


def test_it_learns_and_batches_change_nothing(encoder: Path) -> None:
    model = fitted(encoder)
    asked = [*TEXTS[:6], ("a film",), ("good " * 60,), ("",)]
    scores = model.scores(asked)
    assert (scores[:6].argmax(1) == LABELS[:6]).all()
    alone = np.concatenate([model.scores([one]) for one in asked])
    assert scores == pytest.approx(alone, abs=1e-5)
    assert model.parameters == sum(p.numel() for p in model._model.parameters())


def test_it_starts_from_the_checkpoint_and_always_in_the_same_way(encoder: Path) -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, other = fitted(encoder, epochs=1), fitted(encoder, epochs=1)
    assert torch.equal(torch.get_rng_state(), before)  # nobody else's draws are shifted
    assert (one.scores(TEXTS[:6]) == other.scores(TEXTS[:6])).all()
    stored = load_file(encoder / "model.safetensors")
    unmoved = EncoderClassifier(settings(encoder))
    unmoved._load(2)
    body = f"{unmoved._model.base_model_prefix}."
    held = unmoved._model.state_dict()
    shared = [name for name in stored if name.startswith(body)]
    assert len(shared) > 20
    assert all(torch.equal(stored[name], held[name]) for name in shared)


def test_a_pair_goes_in_as_a_pair(encoder: Path) -> None:
    model = EncoderClassifier(settings(encoder, epochs=1))
    pairs = [(text, text) for (text,) in TEXTS]
    model.fit(pairs, LABELS, 2)
    ids = model._tokenizer("good", "bad")["input_ids"]
    assert ids.count(model._tokenizer.sep_token_id) == 2
    three = model.scores([("a good film", "a", "bad film")])
    assert three == pytest.approx(model.scores([("a good film", "a bad film")]))


@pytest.fixture
def copied(encoder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(encoder, tmp_path / "copied"))


def test_a_checkpoint_that_lacks_weights_is_refused(copied: Path) -> None:
    weights = load_file(copied / "model.safetensors")
    name = next(name for name in weights if "layer.0.attention.self.query.weight" in name)
    del weights[name]
    save_file(weights, copied / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks weights that its config.json names \(\w+.encoder.layer.0"):
        fitted(copied)


def test_what_cannot_be_loaded_is_said(copied: Path) -> None:
    def refused(match: str, **given: Any) -> None:
        with pytest.raises(UserError, match=match):
            classifier_maker(ReceiptSettings(**given))

    refused("there is no model directory './gone'; check the path", model="./gone")
    refused(
        r"'owner/gone' could not be loaded: it is neither tfidf, a model directory, nor a hub",
        model="owner/gone",
    )
    refused("is for a hub id, which .* is not; leave it out", model=str(copied), revision="main")
    (copied / "config.json").write_text("{")
    refused("could not be loaded", model=str(copied))


def test_a_tokenizer_without_padding_is_refused(copied: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(copied)
    tokenizer.pad_token = None
    tokenizer.save_pretrained(copied)
    with pytest.raises(UserError, match="has no padding; use an encoder"):
        classifier_maker(settings(copied))


def test_pickled_weights_need_a_permission(copied: Path) -> None:
    torch.save(load_file(copied / "model.safetensors"), copied / "pytorch_model.bin")
    (copied / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"receipts\.allow_bin: true reads pickled weights"):
        fitted(copied, epochs=1)
    fitted(copied, epochs=1, allow_bin=True)


def test_a_hub_id_is_read_from_the_cache(
    encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "hub" / "models--owner--small"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(commit)
    shutil.copytree(encoder, folder / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    given = ReceiptSettings(model="owner/small", epochs=1)
    model = classifier_maker(given)()
    model.fit(TEXTS, LABELS, 2)
    assert (model.scores(TEXTS[:6]) == fitted(encoder, epochs=1, learning_rate=None).scores(TEXTS[:6])).all()
