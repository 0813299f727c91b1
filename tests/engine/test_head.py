"""The loss over large vocabularies: logits a chunk at a time equal all of them at once."""

from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model

from forgetmenot.engine import head as head_module
from forgetmenot.engine.forward import edge_log_probs
from forgetmenot.engine.head import chunks
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import pack
from forgetmenot.prompting.encoded import TokenSequence
from tests.engine.conftest import VOCABULARY
from tests.engine.test_forward import ADAPTERS, ON_THE_TRIE, Build, assert_equal, in_layout, one_by_one

AT_ONCE = 5  # rows of logits; the packs below have more


@pytest.fixture
def few_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "LOGITS_BYTES", 4 * VOCABULARY * AT_ONCE)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of each matrix of logits that is computed in chunks."""
    rows: list[int] = []
    original = head_module.logits_of

    def logits_of(*args: Any, **named: Any) -> Any:
        logits = original(*args, **named)
        rows.append(len(logits))
        return logits

    monkeypatch.setattr(head_module, "logits_of", logits_of)
    return rows


@pytest.mark.usefixtures("few_at_once")
@pytest.mark.parametrize("name", ON_THE_TRIE)
def test_likelihoods_and_gradients_equal_one_sequence_at_a_time(
    name: str, build: Build, sequences: list[TokenSequence], seen: list[int]
) -> None:
    model = build(ON_THE_TRIE[name]())
    truth = one_by_one(model, sequences)
    assert_equal(in_layout(model, sequences, "trie"), truth)
    assert len(seen) > 4
    assert max(seen) <= AT_ONCE


@pytest.mark.usefixtures("few_at_once")
@pytest.mark.parametrize("kind", ADAPTERS)
def test_adapters_are_inside(kind: str, llama: Any, sequences: list[TokenSequence], seen: list[int]) -> None:
    torch.manual_seed(0)
    model = get_peft_model(llama, ADAPTERS[kind])
    truth = one_by_one(model, sequences)
    assert_equal(in_layout(model, sequences, "trie"), truth)
    assert max(seen) <= AT_ONCE


@pytest.mark.usefixtures("few_at_once")
def test_activation_checkpointing_and_bf16_change_nothing_about_it(
    llama: Any, sequences: list[TokenSequence], monkeypatch: pytest.MonkeyPatch
) -> None:
    def run() -> Any:
        llama.zero_grad()
        values = Learner(llama, tokenizer=None, budget=512, precision="bf16").forward(sequences)
        values.sum().backward()  # type: ignore[no-untyped-call]
        return values, {name: p.grad.clone() for name, p in llama.named_parameters()}

    llama.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    llama.train()
    values, gradients = run()
    monkeypatch.setattr(head_module, "LOGITS_BYTES", 2**29)
    at_once, truth = run()
    assert torch.allclose(values, at_once, rtol=1e-6)
    for name, gradient in truth.items():
        assert (gradients[name] - gradient).norm() <= 1e-2 * gradient.norm(), name


@pytest.mark.usefixtures("few_at_once")
def test_the_model_is_left_as_it_was(llama: Any, sequences: list[TokenSequence]) -> None:
    before = llama(input_ids=torch.tensor([[5, 6, 7]])).logits
    packed = pack(sequences, "trie")
    edge_log_probs(llama, packed).sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(llama(input_ids=torch.tensor([[5, 6, 7]])).logits, before)
    assert not llama.get_decoder()._forward_hooks


@pytest.mark.parametrize(
    ("rows", "vocabulary"), [(0, 97), (1, 97), (4096, 4000), (4096, 151_936), (7, 2**28)]
)
def test_chunks_are_few_even_and_within_the_bound(rows: int, vocabulary: int) -> None:
    made = chunks(rows, vocabulary)
    sizes = [chunk.stop - chunk.start for chunk in made]
    assert np.concatenate([np.arange(rows)[chunk] for chunk in made]).tolist() == list(range(rows))
    assert max(sizes) - min(sizes) <= 1
    bound = max(1, head_module.LOGITS_BYTES // (4 * vocabulary))
    assert max(sizes) <= bound
    assert len(made) == max(1, -(-rows // bound))
