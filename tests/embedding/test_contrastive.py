"""Contrastive tuning: the loss and its gradients against a slow computation of the paper's formula."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor

from forgetmenot.embedding.contrastive import TuningSettings, backward, encode, info_nce, tune
from forgetmenot.embedding.prompt import EmbeddingSettings, asked
from forgetmenot.embedding.triples import read_triples
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.errors import UserError
from forgetmenot.models.adapt import adapt
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting.encoded import TokenSequence

TRIPLES = [
    ("A cat sat", "A cat rests", "A dog sat"),
    ("The sea is blue", "It is blue", "The sea is red"),
    ("A big ship", "A ship", "A small pin"),
    ("It is a rose", "A rose", "It is denim"),
    ("A hound ran", "A dog ran", "Nobody ran"),
]


def by_the_formula(h: Tensor, plus: Tensor, minus: Tensor, temperature: float) -> Tensor:
    def similar(one: Tensor, other: Tensor) -> Tensor:
        cosine: Tensor = one @ other / (one.norm() * other.norm())
        return (cosine / temperature).exp()

    terms = []
    for i in range(len(h)):
        below = sum(
            (similar(h[i], plus[j]) + similar(h[i], minus[j]) for j in range(len(h))), torch.zeros(())
        )
        terms.append(-(similar(h[i], plus[i]) / below).log())
    return torch.stack(terms).mean()


@pytest.fixture
def adapted(learner: Learner) -> Learner:
    """With an adapter whose B is not zero, so that all of it has gradients."""
    learner.model = adapt(learner.model, AdapterSettings(rank=4), 1, 0)
    torch.manual_seed(1)
    for name, value in learner.trainable().items():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.05)
    return learner


@pytest.mark.parametrize("temperature", [0.05, 0.5])
def test_the_loss_is_the_papers(temperature: float) -> None:
    torch.manual_seed(0)
    h, plus, minus = torch.randn(3, 6, 9, dtype=torch.float64)
    wanted = by_the_formula(h, plus, minus, temperature)
    assert info_nce(h, plus, minus, temperature).item() == pytest.approx(wanted.item(), rel=1e-9)
    same = torch.ones(4, 3)
    assert info_nce(same, same, same, temperature).item() == pytest.approx(math.log(8))


@pytest.mark.parametrize("budget", [40, 4096])
def test_gradients_of_many_packs_are_those_of_one_sentence_at_a_time(adapted: Learner, budget: int) -> None:
    learner, settings = replace(adapted, budget=budget), EmbeddingSettings()
    encoded = encode(learner, TRIPLES, settings, 32)
    prompts = [p for triple in encoded for p in triple]
    packs = len(learner.cut([TokenSequence((*p, 0), len(p)) for p in prompts]))
    assert packs > 3 if budget == 40 else packs == 1
    learner.model.train()
    loss = backward(learner, encoded, 0.05, seed=3)
    found = {
        name: value.grad.clone() for name, value in learner.trainable().items() if value.grad is not None
    }

    sides = []
    for texts in zip(*TRIPLES, strict=True):
        rows = []
        for text in texts:
            ids = torch.tensor([learner.tokenizer(asked(text, settings))["input_ids"]])
            rows.append(
                learner.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0, -1].double()
            )
        sides.append(torch.stack(rows))
    slow = by_the_formula(sides[0], sides[1], sides[2], 0.05)
    wanted = torch.autograd.grad(slow, list(learner.trainable().values()))
    assert loss == pytest.approx(slow.item(), rel=1e-4)
    for (name, got), right in zip(found.items(), wanted, strict=True):
        assert right.abs().max() > 0, name
        torch.testing.assert_close(got, right, atol=2e-4 * float(right.abs().max()), rtol=1e-3)


def test_both_passes_draw_the_same_dropout(learner: Learner) -> None:
    learner.model = adapt(learner.model, AdapterSettings(rank=4, dropout=0.5), 1, 0)
    learner = replace(learner, training_layout="blocks", budget=40)
    for name, value in learner.trainable().items():
        if "lora_B" in name:
            torch.nn.init.normal_(value, std=0.3)
    encoded = encode(learner, TRIPLES[:2], EmbeddingSettings(), 32)
    learner.model.train()
    losses = {backward(learner, encoded, 0.05, seed=seed) for seed in (3, 3, 4)}
    assert len(losses) == 2
    backward(learner, encoded, 0.05, seed=3)
    first = {
        name: value.grad.clone() for name, value in learner.trainable().items() if value.grad is not None
    }
    name, value = next((n, v) for n, v in learner.trainable().items() if "lora_B" in n)
    step, shifted = 1e-3, []
    for shift in (step, -2 * step):
        value.data[0, 0] += shift
        shifted.append(backward(learner, encoded, 0.05, seed=3))
    higher, lower = shifted
    assert first[name][0, 0].item() == pytest.approx((higher - lower) / (2 * step), rel=0.05, abs=1e-3)


def test_tuning_brings_the_entailed_sentence_nearer(adapted: Learner) -> None:
    encoded = encode(adapted, TRIPLES, EmbeddingSettings(), 32)
    losses: list[float] = []
    training = TrainingSettings(epochs=12, batch_size=5, schedule="constant")
    before = {name: value.clone() for name, value in adapted.trainable().items()}
    tune(
        adapted,
        encoded,
        0.05,
        training,
        learning_rate=5e-3,
        seed=0,
        on_step=lambda step, loss: losses.append(loss),
    )
    assert len(losses) == 12
    assert losses[-1] < losses[0] / 2
    assert not adapted.model.training
    assert any(not torch.equal(before[name], value) for name, value in adapted.trainable().items())


def test_a_last_batch_that_is_smaller_is_left_out(adapted: Learner) -> None:
    steps: list[int] = []
    tune(
        adapted,
        encode(adapted, TRIPLES, EmbeddingSettings(), 32),
        0.05,
        TrainingSettings(epochs=2, batch_size=2),
        learning_rate=1e-3,
        seed=0,
        on_step=lambda step, loss: steps.append(step),
    )
    assert steps == [1, 2, 3, 4]


def test_long_sentences_are_cut_before_the_prompt(learner: Learner) -> None:
    long = "cat dog " * 30
    ((first, *_),) = encode(learner, [(long, "a", "b")], EmbeddingSettings(), 8)
    assert learner.tokenizer.decode(first).endswith('." means in one word:"')
    whole = learner.tokenizer(asked(long, EmbeddingSettings()))["input_ids"]
    assert len(first) < len(whole) - 20


def test_triples_of_mnli_are_the_premises_with_both_labels(tmp_path: Path) -> None:
    folder = tmp_path / "glue" / "MNLI"
    folder.mkdir(parents=True)
    rows = [
        ("One.", "One e", "entailment"),
        ("Two.", "Two e", "entailment"),
        ("One.", "One n", "neutral"),
        ("One.", "One c", "contradiction"),
        ("One.", "One c2", "contradiction"),
        ("Three.", "Three c", "contradiction"),
    ]
    table = pd.DataFrame(
        [(k, *row) for k, row in enumerate(rows)], columns=["index", "sentence1", "sentence2", "gold_label"]
    )
    for name in ("dev_matched", "train"):
        table.to_csv(folder / f"{name}.tsv", sep="\t", index=False)
    assert read_triples(("mnli-dev",), tmp_path) == [("One.", "One e", "One c")]
    file = tmp_path / "nli_for_simcse.csv"
    file.write_text('sent0,sent1,hard_neg\n"a, b",c,d\n')
    assert read_triples((str(file), "mnli-dev"), tmp_path)[0] == ("a, b", "c", "d")
    file.write_text("sent0,sent1,hard_neg\na,,d\n")
    with pytest.raises(UserError, match=r"line 2: a triple has a sent0, a sent1, a hard_neg"):
        read_triples((str(file),), None)
    with pytest.raises(UserError, match=r"'mnly' is neither mnli nor mnli-dev nor a file.*mnli"):
        read_triples(("mnly",), None)


def test_mnli_dev_has_the_triples_that_its_makers_published(shared: Path) -> None:
    assert len(read_triples(("mnli-dev",), shared / "data")) == 2932


def test_the_defaults_are_the_codes() -> None:
    assert json.loads(TuningSettings().model_dump_json()) == {
        "sources": ["mnli-dev"],
        "temperature": 0.05,
        "sentence_tokens": 32,
    }
