"""Merging task vectors: against PEFT's functions, by hand, and on the weights of a model."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from peft.utils import merge_utils
from torch import Tensor

from forgetmenot.engine.learner import Learner
from forgetmenot.methods import Stage, make_method
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


def flat(values: "merge.Vector | merge.Stream") -> Tensor:
    vector = dict(values)
    return torch.cat([vector[name].flatten() for name in SHAPES])


def streams(vectors: Sequence[merge.Vector]) -> list[merge.Stream]:
    return [vector.items() for vector in vectors]


@pytest.mark.parametrize("density", [0.05, 0.2, 0.5, 1.0])
def test_ties_is_pefts_over_all_tensors_at_once(vectors: list[dict[str, Tensor]], density: float) -> None:
    found = dict(merge.elected([merge.trimmed(vector, density) for vector in vectors]))
    if density == 1:  # PEFT warns and goes on
        with pytest.warns(UserWarning, match="no pruning"):
            expected = merge_utils.ties([flat(v) for v in vectors], torch.ones(3), density)
    else:
        expected = merge_utils.ties([flat(v) for v in vectors], torch.ones(3), density)
    assert torch.allclose(flat(found), expected, rtol=1e-12)


def test_ties_by_hand() -> None:
    """Signs are elected by sums, not by counts; zeros have no say; what cancels out is left alone."""
    rows = [[5.0, 1.0, 0.0, 2.0], [-1.0, 3.0, 4.0, -2.0], [-2.0, 0.0, 0.0, 0.0]]
    found = merge.elected([[("w", torch.tensor(row))] for row in rows])
    assert dict(found)["w"].tolist() == [5.0, 2.0, 4.0, 0.0]
    assert dict(merge.trimmed({"w": torch.tensor([1.0, -3.0]), "v": torch.tensor([2.0, 0.5])}, 0.5)) == {
        "w": pytest.approx(torch.tensor([0.0, -3.0])),
        "v": pytest.approx(torch.tensor([2.0, 0.0])),
    }


def test_the_sum_is_pefts_task_arithmetic(vectors: list[dict[str, Tensor]]) -> None:
    expected = merge_utils.task_arithmetic([flat(v) for v in vectors], torch.full((3,), 0.4))
    start = {name: torch.ones(shape, dtype=torch.float64) for name, shape in SHAPES.items()}
    found = merge.moved(start, merge.vector_sum(streams(vectors)), 0.4)
    assert torch.allclose(flat(found), 1 + expected, rtol=1e-6)


def test_what_dare_leaves_is_rescaled_and_unbiased() -> None:
    """The mean over n entries of 1 has variance p / (1 − p) / n: within 5 deviations of 1."""
    vector = {"w": torch.ones(200, 500), "v": torch.ones(20_000)}
    for rate in (0.5, 0.9):
        found = dict(merge.dropped(vector, rate, torch.Generator().manual_seed(0)))
        every = torch.cat([value.flatten() for value in found.values()]).double()
        assert torch.allclose(every[every != 0], torch.tensor(1 / (1 - rate), dtype=torch.float64))
        deviation = (rate / (1 - rate) / len(every)) ** 0.5
        assert abs(every.mean().item() - 1) < 5 * deviation


def test_dare_draws_the_same_whatever_others_draw(vectors: list[dict[str, Tensor]]) -> None:
    one = dict(merge.dropped(vectors[0], 0.5, torch.Generator().manual_seed(4)))
    state = torch.get_rng_state()
    torch.rand(3)
    other = dict(merge.dropped(vectors[0], 0.5, torch.Generator().manual_seed(4)))
    assert torch.equal(flat(one), flat(other))
    torch.set_rng_state(state)
    list(merge.dropped(vectors[0], 0.5, torch.Generator().manual_seed(4)))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(flat(merge.dropped(vectors[0], 0, torch.Generator())), flat(vectors[0]))


def test_magmax_takes_each_entry_where_it_is_largest(vectors: list[dict[str, Tensor]]) -> None:
    found = flat(merge.largest(streams(vectors))).tolist()
    assert found == [
        max(entries, key=abs) for entries in zip(*(flat(v).tolist() for v in vectors), strict=True)
    ]


def _moved_adapter(learner: Learner, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in learner.trainable().values():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))


@pytest.mark.parametrize("density", [0.001, 0.2, 0.5, 0.9, 1.0])
def test_the_least_magnitude_that_is_kept_is_the_sorted_ones(density: float) -> None:
    """Also among equal magnitudes, zeros, and numbers that differ in their last bits alone."""
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(5000, generator=generator) * 10.0 ** torch.randint(
        -9, 3, (5000,), generator=generator
    )
    values[:500] = 1 + torch.arange(500) * 2**-23
    values[500:900] = 0
    values[900:1300] = -0.25
    vector = {"a": values[:1000].view(10, 100), "b": values[1000:]}
    kept = max(1, int(density * 5000))
    assert merge.least_kept(vector, density) == values.abs().sort(descending=True).values[kept - 1].item()


def computed(learner: Learner) -> dict[str, Tensor]:
    """The weights as they compute: what PEFT merges."""
    merged = dict(copy.deepcopy(learner.model).merge_and_unload().named_parameters())
    return {
        name: merged[f"{name.removeprefix('base_model.model.')}.weight"] for name in merge.weights(learner)
    }


@pytest.mark.parametrize("targets", ["all-linear", ["embed_tokens", "q_proj"]])
def test_what_lora_learned_is_what_peft_merges_and_is_kept_as_factors(
    adapted: Adapted, targets: str | list[str]
) -> None:
    learner = adapted(per_stage="merge", targets=targets)
    _moved_adapter(learner)
    kept = merge.learned(learner, {})
    assert sum(value.nbytes for value in kept.values()) == sum(p.nbytes for p in learner.trainable().values())
    formed, expected = merge.Formed([kept], learner.device), computed(learner)
    assert formed.keys() == expected.keys() != set()
    for name, value in merge.weights(learner).items():
        assert torch.allclose(value + formed[name], expected[name], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("targets", ["all-linear", ["embed_tokens", "q_proj"]])
def test_what_replaces_weights_is_what_computes(adapted: Adapted, targets: str | list[str]) -> None:
    """PEFT's merging of an adapter, and ours, give the same answers; the adapter then adds nothing."""
    learner = adapted(per_stage="merge", targets=targets)
    start = merge.copied(merge.weights(learner))
    _moved_adapter(learner)
    tokens = torch.arange(5, 25)[None]
    with torch.no_grad():
        expected = learner.model(input_ids=tokens).logits
        vector = merge.Formed([merge.learned(learner, {})], learner.device)
        merge.replace(learner, merge.moved(start, vector.items()))
        assert torch.allclose(learner.model(input_ids=tokens).logits, expected, atol=1e-5)
        merge.replace(learner, start.items())
        with learner.model.disable_adapter():
            plain = learner.model(input_ids=tokens).logits
        assert torch.equal(learner.model(input_ids=tokens).logits, plain)
    assert not torch.allclose(expected, plain, atol=1e-3)


def test_in_full_fine_tuning_all_that_learns_is_merged(adapted: Adapted) -> None:
    learner = adapted(kind="full")
    start = merge.copied(merge.weights(learner))
    assert list(start) == list(learner.trainable())
    _moved_adapter(learner)
    merge.replace(learner, merge.interpolated(start, merge.weights(learner), 0.0))
    assert all(torch.equal(p, start[name]) for name, p in learner.trainable().items())


@pytest.mark.parametrize("adapter", [{"kind": "full"}, {"per_stage": "merge"}], ids=["full", "lora"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("task-arithmetic", {"scale": 0.7}),
        ("ties", {"density": 0.3}),
        ("dare", {"rate": 0}),
        ("dare", {"rate": 0, "merge": "ties"}),
        ("magmax", {"scale": 0.5}),
        ("weight-averaging", {"share": 0.6}),
        ("weight-averaging", {"share": 0.6, "anchor": "base"}),
    ],
)
def test_three_stages_end_as_with_whole_copies(
    name: str, options: dict[str, Any], adapter: dict[str, str], adapted: Adapted
) -> None:
    """The formulas over whole weights, each stage's by PEFT's own merging; with a new method each stage."""
    learner, method, state = adapted(**adapter), make_method(name, options, 0), dict[str, Any]()
    full = adapter.get("kind") == "full"

    def now() -> dict[str, Tensor]:
        found = learner.snapshot() if full else computed(learner)
        return {key: value.detach().double().clone() for key, value in found.items()}

    base = before = now()
    vectors: list[dict[str, Tensor]] = []
    for number in (1, 2, 3):
        method = make_method(name, options, 0)
        method.load_state_dict({key: value.clone() for key, value in state.items()})
        stage = Stage(number, ("size",))
        if method.start(stage) == "base":
            merge.replace(learner, ((key, value.float()) for key, value in base.items()))
        method.begin(learner, stage)
        if name == "magmax" and vectors:
            assert all(torch.allclose(v, base[k] + vectors[-1][k], atol=1e-6) for k, v in now().items())
        _moved_adapter(learner, number)
        after = now()
        vectors.append({key: value - base[key] for key, value in after.items()})
        method.end(learner, stage)
        state = method.state_dict()
        if name == "weight-averaging":
            anchor = base if "anchor" in options else before
            expected = {key: anchor[key] + 0.6 * (value - anchor[key]) for key, value in after.items()}
        else:
            expected = {
                key: value + method.options.scale * by_definition(name, options, vectors)[key]
                for key, value in base.items()
            }
        before = now()
        for key, value in before.items():
            assert torch.allclose(value, expected[key], rtol=0, atol=2e-6), (number, key)
    if not full and (name, options.get("anchor")) != ("weight-averaging", None):
        factors = sum(p.nbytes for p in learner.trainable().values())
        assert sum(value.nbytes for value in state.values()) == 3 * factors
    assert all(value.device.type == "cpu" for value in state.values())


def by_definition(name: str, options: dict[str, Any], vectors: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """One vector of all tasks', from whole tensors."""
    if name == "ties":
        every = [torch.cat([value.abs().flatten() for value in vector.values()]) for vector in vectors]
        least = [one.sort(descending=True).values[int(0.3 * len(one)) - 1].float() for one in every]
        vectors = [
            {key: torch.where(value.abs().float() >= bound, value, 0) for key, value in vector.items()}
            for vector, bound in zip(vectors, least, strict=True)
        ]
    merged = {}
    for key in vectors[0]:
        stacked = torch.stack([vector[key] for vector in vectors])
        if name == "magmax":
            merged[key] = stacked.gather(0, stacked.abs().argmax(0, keepdim=True))[0]
        elif name == "ties" or options.get("merge") == "ties":
            agreeing = (stacked.sign() == stacked.sum(0).sign()) & (stacked != 0)
            merged[key] = (stacked * agreeing).sum(0) / agreeing.sum(0).clamp(min=1)
        else:
            merged[key] = stacked.sum(0)
    return merged
