"""GEM and A-GEM: the projected gradient against an independent solver and against the papers' equations."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from torch import Tensor

from forgetmenot.engine.learner import Learner
from forgetmenot.engine.objectives import batch_loss, divisor
from forgetmenot.errors import UserError
from forgetmenot.methods import Method, Stage, make_method
from forgetmenot.methods.gem import dual
from forgetmenot.methods.shared.gradient_memory import GradientMemory
from forgetmenot.prompting import Encoded, TokenSequence

Floats = NDArray[np.float64]
SHAPES = {"weight": (3, 2), "bias": (3,)}
WIDTH = 9


class Pulled(Learner):
    """A linear layer; each example pulls with a gradient of its own, which its id names."""

    def __init__(self, pulls: Mapping[str, Floats]) -> None:
        super().__init__(torch.nn.Linear(2, 3).double(), None, 512)
        self.pulls = pulls
        self.asked: list[list[str]] = []

    def gradient_of(
        self, examples: Sequence[Encoded], weights: Sequence[float] | None = None
    ) -> dict[str, Tensor]:
        self.asked.append([example.id for example in examples])
        counted = weights or [1.0] * len(examples)
        pulls = [w * self.pulls[one.id] for w, one in zip(counted, examples, strict=True)]
        return _parts(np.sum(pulls, axis=0))


def _parts(flat: Floats) -> dict[str, Tensor]:
    pieces = torch.split(torch.from_numpy(flat.copy()), [6, 3])
    return {name: piece.view(SHAPES[name]) for name, piece in zip(SHAPES, pieces, strict=True)}


def _example(name: str, tokens: int = 1) -> Encoded:
    return Encoded(name, (), TokenSequence((1, *(2,) * tokens), 1), (1,), None, 0)


def projected(
    name: str, gradient: Floats, past: Mapping[str, Mapping[str, Floats]], tokens: int = 1, **options: Any
) -> tuple[Floats, Pulled, Method]:
    """The gradient of a step in the stage after those of `past`: task → example → its gradient."""
    learner = Pulled({k: v for pulls in past.values() for k, v in pulls.items()})
    method = make_method(name, {"memory": 1.0, **options}, seed=0)
    for number, (task, pulls) in enumerate(past.items(), start=1):
        stage = Stage(number, (task,), data={task: [_example(one, tokens) for one in pulls]})
        method.begin(learner, stage)
        method.end(learner, stage)
    method.notes.clear()
    state = json.loads(json.dumps(method.state_dict()))
    method = make_method(name, {"memory": 1.0, **options}, seed=0)
    method.load_state_dict(state)
    for parameter, value in _parts(gradient).items():
        learner.trainable()[parameter].grad = value
    method.begin(learner, Stage(len(past) + 1, ("new",)))
    method.gradients(learner)
    found = np.concatenate([value.flatten().numpy() for value in learner.gathered().values()])
    return found, learner, method


def nearest_allowed(gradient: Floats, references: Floats) -> Floats:
    """The g̃ nearest to g with G g̃ ≥ 0, by SLSQP on the primal problem."""
    found = minimize(
        lambda x: ((x - gradient) ** 2).sum() / 2,
        np.zeros_like(gradient),
        jac=lambda x: x - gradient,
        constraints={"type": "ineq", "fun": lambda x: references @ x, "jac": lambda x: references},
        method="SLSQP",
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    result: Floats = found.x
    return result


@pytest.mark.parametrize("seed", range(8))
def test_gem_takes_the_nearest_gradient_that_no_past_task_objects_to(seed: int) -> None:
    draw = np.random.default_rng(seed)
    gradient = draw.normal(size=WIDTH)
    references = draw.normal(size=(4, WIDTH)) - gradient / 3  # mostly against it
    references *= 10.0 ** draw.uniform(-2, 2, size=(4, 1))
    past = {f"task{k}": {f"{k}": row} for k, row in enumerate(references)}
    found, _, method = projected("gem", gradient, past)
    assert (references @ gradient).min() < 0
    expected = nearest_allowed(gradient, references / np.linalg.norm(references, axis=1, keepdims=True))
    assert found == pytest.approx(expected, abs=1e-6)
    assert (references @ found / np.linalg.norm(references, axis=1)).min() > -1e-9
    method.end(Pulled({}), Stage(5, ("new",), data={}))
    assert method.notes == ["the gradient was changed in 1 of 1 steps."]


@pytest.mark.parametrize("kind", ["twice the same", "opposite", "zero", "more than dimensions"])
def test_gem_solves_what_is_degenerate(kind: str) -> None:
    draw = np.random.default_rng(3)
    gradient, one = draw.normal(size=WIDTH), draw.normal(size=WIDTH)
    one *= -np.sign(one @ gradient)
    references = {
        "twice the same": np.stack([one, one]),
        "opposite": np.stack([one, -one]),
        "zero": np.stack([one, np.zeros(WIDTH)]),
        "more than dimensions": draw.normal(size=(2 * WIDTH, WIDTH)) - gradient,
    }[kind]
    solution = dual(references @ references.T, references @ gradient)
    found = gradient + references.T @ solution
    assert solution.min() >= 0
    assert (references @ found).min() > -1e-8
    assert found == pytest.approx(nearest_allowed(gradient, references), abs=1e-5)


def test_gem_and_agem_are_one_with_one_past_task() -> None:
    draw = np.random.default_rng(1)
    gradient, reference = draw.normal(size=(2, WIDTH))
    reference *= -np.sign(reference @ gradient)
    expected = gradient - (gradient @ reference) / (reference @ reference) * reference
    for name in ("gem", "agem"):
        found, *_ = projected(name, gradient, {"one": {"a": reference}}, tokens=3)
        assert found == pytest.approx(expected, abs=1e-12)
        assert found @ reference == pytest.approx(0, abs=1e-12)


def test_the_margin_adds_to_the_dual_solution() -> None:
    draw = np.random.default_rng(2)
    gradient, reference = draw.normal(size=(2, WIDTH))
    reference *= -np.sign(reference @ gradient)
    found, *_ = projected("gem", gradient, {"one": {"a": reference}}, margin=0.5)
    solution = -(gradient @ reference) / (reference @ reference)
    assert found == pytest.approx(gradient + (solution + 0.5) * reference, abs=1e-12)


@pytest.mark.parametrize("name", ["gem", "agem"])
def test_a_gradient_that_helps_the_past_stays_as_it_is(name: str) -> None:
    gradient = np.random.default_rng(4).normal(size=WIDTH)
    past = {"one": {"a": gradient * 2}, "two": {"b": gradient + 0.01}}
    found, _, method = (
        projected(name, gradient, past, margin=0.5) if name == "gem" else projected(name, gradient, past)
    )
    assert np.array_equal(found, gradient)
    method.end(Pulled({}), Stage(3, ("new",), data={}))
    assert method.notes[0].endswith("in 0 of 1 steps.")


def test_agem_mixes_the_past_and_gem_asks_each_task() -> None:
    gradient = np.ones(WIDTH)
    past = {task: {f"{task}{k}": -np.ones(WIDTH) for k in range(10)} for task in ("a", "b", "c")}
    _, learner, _ = projected("agem", gradient, past, batch=12)
    (asked,) = learner.asked
    assert len(set(asked)) == 12
    assert {name[0] for name in asked} == {"a", "b", "c"}
    _, learner, _ = projected("gem", gradient, past, batch=4)
    assert [[name[0] for name in asked] for asked in learner.asked] == [["a"] * 4, ["b"] * 4, ["c"] * 4]
    _, learner, _ = projected("gem", gradient, past, batch=None)
    assert [len(set(asked)) for asked in learner.asked] == [10] * 3


def test_each_step_draws_anew() -> None:
    past = {"a": {f"a{k}": np.ones(WIDTH) for k in range(30)}}
    for name in ("gem", "agem"):
        _, learner, method = projected(name, np.ones(WIDTH), past, batch=5)
        method.gradients(learner)
        assert learner.asked[0] != learner.asked[1]
        _, again, _ = projected(name, np.ones(WIDTH), past, batch=5)
        assert again.asked[0] == learner.asked[0]


@pytest.mark.parametrize(
    ("name", "option"), [("gem", "batch"), ("gem", "margin"), ("agem", "batch"), ("agem", "memory")]
)
def test_options_are_checked(name: str, option: str) -> None:
    with pytest.raises(UserError, match=rf"^method\.{option}: .*greater"):
        make_method(name, {option: -1}, 0)


@pytest.mark.parametrize("average", ["token", "example"])
@pytest.mark.parametrize("name", ["gem", "agem"])
def test_the_reference_is_the_gradient_that_a_step_on_the_remembered_batch_would_take(
    name: str,
    average: Literal["token", "example"],
    learner: Learner,
    stage: Stage,
    examples: list[Encoded],
) -> None:
    """Of answers of one to three tokens, so that a mean over tokens and one over examples differ."""
    remembered = [
        replace(one, answer=TokenSequence((*one.answer.tokens, *(7,) * (k % 3)), one.answer.start))
        for k, one in enumerate(examples)
    ]
    learner.loss_average = average
    method = make_method(name, {"batch": len(remembered)}, seed=0)
    assert isinstance(method, GradientMemory)
    method.begin(learner, stage)
    found = method.reference(learner, remembered)
    torch.autograd.backward(batch_loss(learner, remembered) / divisor(learner, remembered))
    step = learner.gathered()
    assert found.keys() == step.keys()
    difference = {name: found[name] - step[name] for name in step}
    assert learner.norm(difference) < 1e-5 * learner.norm(step)
