"""Merging task vectors: against PEFT's functions, by hand, and on the weights of a model."""

import copy
from collections.abc import Callable

import pytest
import torch
from peft.utils import merge_utils
from torch import Tensor

from forgetmenot.engine.learner import Learner
from forgetmenot.methods.shared import merge

Adapted = Callable[..., Learner]
SHAPES = {"a": (7, 5), "b": (11,), "c": (3, 4)}


@pytest.fixture
def vectors() -> list[dict[str, Tensor]]:
    """Three of 58 entries, no two of the same magnitude."""
    generator = torch.Generator().manual_seed(3)
    return [
        {name: torch.randn(shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}
        for _ in range(3)
    ]


def flat(vector: merge.Vector) -> Tensor:
    return torch.cat([vector[name].flatten() for name in SHAPES])


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 1.0])
def test_ties_is_pefts_over_all_tensors_at_once(vectors: list[dict[str, Tensor]], density: float) -> None:
    found = merge.elected([merge.trimmed(vector, density) for vector in vectors])
    if density == 1:  # PEFT warns and goes on
        with pytest.warns(UserWarning, match="no pruning"):
            expected = merge_utils.ties([flat(v) for v in vectors], torch.ones(3), density)
    else:
        expected = merge_utils.ties([flat(v) for v in vectors], torch.ones(3), density)
    assert torch.allclose(flat(found), expected, rtol=1e-12)


def test_ties_by_hand() -> None:
    """Signs are elected by sums, not by counts; zeros have no say; what cancels out is left alone."""
    rows = [[5.0, 1.0, 0.0, 2.0], [-1.0, 3.0, 4.0, -2.0], [-2.0, 0.0, 0.0, 0.0]]
    found = merge.elected([{"w": torch.tensor(row)} for row in rows])
    assert found["w"].tolist() == [5.0, 2.0, 4.0, 0.0]
    assert merge.trimmed({"w": torch.tensor([1.0, -3.0]), "v": torch.tensor([2.0, 0.5])}, 0.5) == {
        "w": pytest.approx(torch.tensor([0.0, -3.0])),
        "v": pytest.approx(torch.tensor([2.0, 0.0])),
    }


def test_the_sum_is_pefts_task_arithmetic(vectors: list[dict[str, Tensor]]) -> None:
    expected = merge_utils.task_arithmetic([flat(v) for v in vectors], torch.full((3,), 0.4))
    start = {name: torch.ones(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
    found = merge.moved(start, merge.vector_sum(vectors), 0.4)
    assert torch.allclose(flat(found), 1 + expected, rtol=1e-6)


def test_what_dare_leaves_is_rescaled_and_unbiased() -> None:
    """The mean over n entries of 1 has variance p / (1 − p) / n: within 5 deviations of 1."""
    vector = {"w": torch.ones(200, 500), "v": torch.ones(20_000)}
    for rate in (0.5, 0.9):
        found = merge.dropped(vector, rate, torch.Generator().manual_seed(0))
        every = torch.cat([value.flatten() for value in found.values()]).double()
        assert torch.allclose(every[every != 0], torch.tensor(1 / (1 - rate), dtype=torch.float64))
        deviation = (rate / (1 - rate) / len(every)) ** 0.5
        assert abs(every.mean().item() - 1) < 5 * deviation


def test_dare_draws_the_same_whatever_others_draw(vectors: list[dict[str, Tensor]]) -> None:
    one = merge.dropped(vectors[0], 0.5, torch.Generator().manual_seed(4))
    state = torch.get_rng_state()
    torch.rand(3)
    other = merge.dropped(vectors[0], 0.5, torch.Generator().manual_seed(4))
    assert torch.equal(flat(one), flat(other))
    torch.set_rng_state(state)
    merge.dropped(vectors[0], 0.5, torch.Generator().manual_seed(4))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(flat(merge.dropped(vectors[0], 0, torch.Generator())), flat(vectors[0]))


def test_magmax_takes_each_entry_where_it_is_largest(vectors: list[dict[str, Tensor]]) -> None:
    found = flat(merge.largest(vectors)).tolist()
    assert found == [
        max(entries, key=abs) for entries in zip(*(flat(v).tolist() for v in vectors), strict=True)
    ]


def _moved_adapter(learner: Learner) -> None:
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in learner.trainable().values():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))


@pytest.mark.parametrize("targets", ["all-linear", ["embed_tokens", "q_proj"]])
def test_the_weights_under_lora_are_those_that_peft_merges(
    adapted: Adapted, targets: str | list[str]
) -> None:
    learner = adapted(per_stage="merge", targets=targets)
    _moved_adapter(learner)
    merged = dict(copy.deepcopy(learner.model).merge_and_unload().named_parameters())
    found = merge.weights(learner)
    assert found
    for name, value in found.items():
        expected = merged[f"{name.removeprefix('base_model.model.')}.weight"]
        assert torch.equal(value, expected)


@pytest.mark.parametrize("targets", ["all-linear", ["embed_tokens", "q_proj"]])
def test_what_replaces_weights_is_what_computes(adapted: Adapted, targets: str | list[str]) -> None:
    """PEFT's merging of an adapter, and ours, give the same answers; the adapter then adds nothing."""
    learner = adapted(per_stage="merge", targets=targets)
    start = merge.weights(learner)
    _moved_adapter(learner)
    tokens = torch.arange(5, 25)[None]
    with torch.no_grad():
        expected = learner.model(input_ids=tokens).logits
        merge.replace(learner, merge.weights(learner))
        assert torch.allclose(learner.model(input_ids=tokens).logits, expected, atol=1e-5)
        merge.replace(learner, start)
        with learner.model.disable_adapter():
            plain = learner.model(input_ids=tokens).logits
        assert torch.equal(learner.model(input_ids=tokens).logits, plain)
    assert not torch.allclose(expected, plain, atol=1e-3)


def test_in_full_fine_tuning_all_that_learns_is_merged(adapted: Adapted) -> None:
    learner = adapted(kind="full")
    start = merge.weights(learner)
    assert list(start) == list(learner.trainable())
    _moved_adapter(learner)
    merge.replace(learner, merge.interpolated(start, merge.weights(learner), 0.0))
    assert all(torch.equal(p, start[name]) for name, p in learner.trainable().items())
