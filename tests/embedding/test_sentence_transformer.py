"""The export for sentence-transformers: the same tokens and the same vectors of raw sentences."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetmenot.embedding.prompt import EmbeddingSettings
from forgetmenot.embedding.sentence_transformer import export_sentence_transformer, with_prompt
from forgetmenot.embedding.vectors import embed, prompts_of
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError

SENTENCES = [
    "A cat",
    "Is  it\tred? ",
    'He said "no"',
    "It dances!",
    "!?",
    "a\n\nb <|end|> c",
    "tümmler\u3000sea",
    "'quoted.'",
]
DEMONSTRATION = ("A man is smoking.", "Smoking")
WAYS = [
    EmbeddingSettings(),
    EmbeddingSettings(demonstration=DEMONSTRATION, template="paper"),
    EmbeddingSettings(pooling="mean"),
    EmbeddingSettings(pooling="last"),
]


@pytest.fixture(params=WAYS, ids=lambda one: f"{one.pooling}-{one.template}")
def settings(request: Any) -> EmbeddingSettings:
    way: EmbeddingSettings = request.param
    return way


@pytest.fixture
def exported(learner: Learner, settings: EmbeddingSettings, tmp_path: Path) -> Path:
    folder = tmp_path / "exported"
    folder.mkdir()
    export_sentence_transformer(learner.model, learner.tokenizer, settings, "tiny", folder)
    return folder


def test_the_exported_tokenizer_reads_raw_sentences_as_the_prompt(
    exported: Path, learner: Learner, settings: EmbeddingSettings
) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(exported)
    wanted = prompts_of(learner, SENTENCES, settings)
    assert [tuple(tokenizer(text)["input_ids"]) for text in SENTENCES] == wanted
    padded = tokenizer(SENTENCES, padding=True)
    assert [sum(mask) for mask in padded["attention_mask"]] == [len(prompt) for prompt in wanted]


def test_sentence_transformers_gives_the_same_vectors(
    exported: Path, learner: Learner, settings: EmbeddingSettings
) -> None:
    library = pytest.importorskip(
        "sentence_transformers", reason="needs sentence-transformers: pip install 'forgetmenot[embeddings]'"
    )
    model = library.SentenceTransformer(str(exported), device="cpu")
    found = torch.tensor(model.encode(SENTENCES))
    torch.testing.assert_close(found, embed(learner, SENTENCES, settings), atol=2e-5, rtol=1e-4)
    assert model.max_seq_length == 128


def test_a_normalizer_of_the_models_own_comes_last() -> None:
    own = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
    tokens = [{"id": 1, "content": "<s>", "special": True}, {"id": 2, "content": "▁▁", "special": False}]
    for normalizer in (own, {"type": "Sequence", "normalizers": [own]}):
        found = with_prompt({"normalizer": normalizer, "added_tokens": tokens}, EmbeddingSettings())
        assert found["normalizer"]["normalizers"][-1] == own
        assert found["added_tokens"] == tokens[:1]


def test_a_tokenizer_in_python_is_refused(learner: Learner, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"written in Python"):
        export_sentence_transformer(learner.model, object(), EmbeddingSettings(), "tiny", tmp_path)


def test_the_folder_says_what_it_is(exported: Path, settings: EmbeddingSettings) -> None:
    assert EmbeddingSettings(**json.loads((exported / "embedding.json").read_text())) == settings
    assert "SentenceTransformer(" in (exported / "README.md").read_text()
    assert not (exported / "chat_template.jinja").exists()
