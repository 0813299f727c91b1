"""Divergences between two models, against torch's own on whole logits of one sequence at a time."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from peft import get_peft_model
from torch import Tensor

from forgetmenot.engine import head as head_module
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import Layout
from forgetmenot.prompting.encoded import TokenSequence
from tests.engine.conftest import VOCABULARY
from tests.engine.test_forward import ADAPTERS, ON_THE_TRIE, Build


def one_by_one(base: Any, model: Any, sequences: list[TokenSequence]) -> Tensor:
    """KL(base ‖ model) at each predicted token, by torch."""
    found = []
    with torch.no_grad():
        for one in sequences:
            p, q = (
                m(input_ids=torch.tensor([one.tokens])).logits[0, one.start - 1 : -1].log_softmax(-1)
                for m in (base, model)
            )
            found.append(F.kl_div(q, p, log_target=True, reduction="none").sum(-1))
    return torch.cat(found).double()


def changed(model: Any, *, head: bool) -> Any:
    """A copy of a model with other weights, its head's among them or not."""
    torch.manual_seed(1)
    other = copy.deepcopy(model)
    own = other.get_output_embeddings().weight
    for p in other.parameters():
        if head or p is not own:
            p.data += torch.randn_like(p) * 0.1
    return other


@pytest.fixture(params=[512, 5], ids=["at once", "in chunks"])
def _rows(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "LOGITS_BYTES", 4 * VOCABULARY * request.param)


@pytest.mark.usefixtures("_rows")
@pytest.mark.parametrize("name", ON_THE_TRIE)
def test_they_are_those_of_torch(name: str, build: Build, sequences: list[TokenSequence]) -> None:
    base = build(ON_THE_TRIE[name]())
    before = Learner(base, tokenizer=None, budget=40)
    states, head = before.states(sequences), before.head()
    assert before.divergences(sequences, states, head).abs().max() < 1e-6
    model = changed(base, head=True)
    truth = one_by_one(base, model, sequences)
    assert truth.max() > 0.05
    learner = Learner(model, tokenizer=None, budget=40)
    assert learner.head_is_apart
    found = learner.divergences(sequences, states, head)
    assert torch.allclose(found, truth, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("layout", ["trie", "blocks"])
@pytest.mark.parametrize("budget", [20, 60, 4096])
def test_they_do_not_depend_on_packs(
    layout: Layout, budget: int, llama: Any, sequences: list[TokenSequence]
) -> None:
    model = changed(llama, head=False)
    truth = one_by_one(llama, model, sequences)
    before = Learner(llama, tokenizer=None, budget=33)
    states = before.states(sequences)
    after = Learner(model, tokenizer=None, budget=budget, layout=layout)
    found = after.divergences(sequences, states, after.head())
    assert torch.allclose(found, truth, atol=1e-5)


@pytest.mark.parametrize("kind", ADAPTERS)
def test_an_adapter_on_the_head_is_no_part_of_the_base(
    kind: str, llama: Any, sequences: list[TokenSequence]
) -> None:
    base = copy.deepcopy(llama)
    states = Learner(base, tokenizer=None, budget=512).states(sequences)
    torch.manual_seed(0)
    model = get_peft_model(llama, ADAPTERS[kind]).eval()
    for name, p in model.named_parameters():
        if "lora_B" in name:
            p.data += torch.randn_like(p) * 0.1
    learner = Learner(model, tokenizer=None, budget=512)
    head = learner.head()
    assert torch.equal(head.weight, base.get_output_embeddings().weight)
    found = learner.divergences(sequences, states, head)
    assert torch.allclose(found, one_by_one(base, model, sequences), atol=1e-5)
    assert found.max() > 0.01


def test_in_bf16_the_base_is_at_zero_and_another_model_near_the_truth(
    llama: Any, sequences: list[TokenSequence]
) -> None:
    before = Learner(llama, tokenizer=None, budget=60, precision="bf16")
    states, head = before.states(sequences), before.head()
    assert before.divergences(sequences, states, head).abs().max() < 1e-6
    model = changed(llama, head=True)
    found = Learner(model, tokenizer=None, budget=60, precision="bf16").divergences(sequences, states, head)
    truth = one_by_one(llama, model, sequences)
    assert (found - truth).norm() < 0.1 * truth.norm()


def test_padded_batches_have_no_states_before_a_head(llama: Any) -> None:
    assert not Learner(llama, tokenizer=None, budget=60, layout="padded").head_is_apart


def test_the_model_is_left_as_it_was(llama: Any, sequences: list[TokenSequence]) -> None:
    own = llama.get_output_embeddings()
    learner = Learner(llama, tokenizer=None, budget=60)
    learner.divergences(sequences, learner.states(sequences), learner.head())
    assert llama.get_output_embeddings() is own
    assert "forward" not in vars(own)
