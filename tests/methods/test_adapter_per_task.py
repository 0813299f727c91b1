"""The router against distances taken by hand, and adapters that stay as they were learned."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.covariance import oas

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import Method, Stage, make_method
from forgetmenot.methods.shared import routing
from forgetmenot.methods.shared.routing import shrunk
from forgetmenot.models.adapt import adapt
from forgetmenot.models.adapters.lora import answering_with
from forgetmenot.models.settings import AdapterSettings

Adapted = Callable[..., Learner]


@pytest.fixture
def learned(adapted: Adapted, few_examples: Any) -> tuple[Learner, Method]:
    """After stages on `near` and `far`; what each adapter is, is drawn instead of trained."""
    learner, method = adapted(per_stage="new"), make_method("adapter-per-task", {}, 0)
    for number, (task, examples) in enumerate(few_examples.items(), start=1):
        stage = Stage(number, (task,), data={task: examples[:8]})
        if number > 1:
            learner.model = adapt(learner.model, AdapterSettings(per_stage="new"), number, seed=number)
        method.adapt(learner, stage)
        method.begin(learner, stage)
        with torch.no_grad():
            for value in learner.trainable().values():
                value += 0.1 * torch.randn_like(value)
        method.end(learner, stage)
    return learner, method


def test_only_the_stages_own_adapter_learns_and_answers(
    learned: tuple[Learner, Method], adapted: Adapted, few_examples: Any
) -> None:
    learner, _ = learned
    assert learner.model.active_adapters == ["stage-02"]
    assert all(".stage-02." in name for name in learner.trainable())
    alone = adapted()
    values = {name: value for name, value in learner.model.named_parameters() if ".stage-02." in name}
    for name, value in alone.trainable().items():
        value.data.copy_(values[name.replace(".default.", ".stage-02.")])
    scores = [one.score(few_examples["far"]) for one in (learner, alone)]
    assert np.array_equal(scores[0], scores[1])


@pytest.mark.parametrize("distance", ["mahalanobis", "euclidean"])
def test_a_prompt_goes_to_the_nearest_centroid(adapted: Adapted, few_examples: Any, distance: str) -> None:
    """Distances by NumPy and scikit-learn, on states that Transformers gives for one prompt at a time."""
    learner, method = adapted(per_stage="new"), make_method("adapter-per-task", {"distance": distance}, 0)
    for number, (task, examples) in enumerate(few_examples.items(), start=1):
        method.begin(learner, Stage(number, (task,), data={task: examples[:8]}))
    base = adapted(kind="full").model

    def state(prompt: tuple[int, ...]) -> Any:
        with torch.no_grad():
            return base(torch.tensor([prompt]), output_hidden_states=True).hidden_states[1][0, -1].numpy()

    known = {
        task: np.stack([state(e.prompt) for e in examples[:8]]).astype(float)
        for task, examples in few_examples.items()
    }
    around = np.concatenate([states - states.mean(0) for states in known.values()])
    measure = np.eye(around.shape[1])
    if distance == "mahalanobis":
        measure = np.linalg.inv(oas(around, assume_centered=True)[0])
    prompts = [example.prompt for examples in few_examples.values() for example in examples]

    def far(prompt: tuple[int, ...], task: str) -> float:
        apart = state(prompt) - known[task].mean(0)
        return float(apart @ measure @ apart)

    nearest = [min(known, key=lambda task: far(prompt, task)) for prompt in prompts]
    assert set(nearest) == {"near", "far"}
    assert method.route(learner, prompts) == nearest
    again = make_method("adapter-per-task", {"distance": distance}, 0)
    again.load_state_dict({"adapters": {}, **method.state_dict()})
    assert again.route(learner, prompts) == nearest


def test_shrinkage_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    for count, width in ((3, 20), (40, 20), (4000, 20), (2, 5)):
        samples = random.normal(size=(count, width)) * np.linspace(0.01, 3, width)
        expected, _ = oas(samples, assume_centered=True)
        found = shrunk(torch.tensor(samples.T @ samples), count)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10)
        assert np.linalg.eigvalsh(found.numpy()).min() > 0
    assert torch.equal(shrunk(torch.zeros(4, 4, dtype=torch.float64), 2), torch.eye(4, dtype=torch.float64))


def test_directions_in_which_all_prompts_vary_decide_nothing(adapted: Adapted, few_examples: Any) -> None:
    """Two tasks apart in one direction, and spread far more in another."""
    random = np.random.default_rng(0)
    method = make_method("adapter-per-task", {}, 0)
    plain = make_method("adapter-per-task", {"distance": "euclidean"}, 0)
    learner, states = adapted(per_stage="new"), dict[tuple[int, ...], Any]()

    def embed(_: Learner, prompts: Any) -> Any:
        return torch.stack([states[tuple(prompt)] for prompt in prompts])

    shares = {}
    for one in (method, plain):
        one._embed = embed  # type: ignore[attr-defined]
        for number, (task, examples) in enumerate(few_examples.items(), start=1):
            for example in examples:
                drawn = random.normal(size=2) * [0.1, 3.0] + [float(number), 0.0]
                states.setdefault(example.prompt, torch.tensor(drawn, dtype=torch.float32))
            one.begin(learner, Stage(number, (task,), data={task: examples}))
        routed = {task: one.route(learner, [e.prompt for e in rows]) for task, rows in few_examples.items()}
        hits = [part == task for task, parts in routed.items() for part in parts or ()]
        shares[one] = sum(hits) / len(hits)
    assert shares[method] == 1.0
    assert shares[plain] < 0.9


def test_each_part_answers_with_its_adapter_and_leaves_no_trace(
    learned: tuple[Learner, Method], few_examples: Any
) -> None:
    learner, method = learned
    examples = few_examples["near"]
    learning, before = list(learner.trainable()), learner.score(examples)
    with method.routed(learner, "near"):
        assert learner.model.active_adapters == ["default"]
        assert not learner.trainable()
        assert not np.allclose(learner.score(examples), before)
    method.route(learner, [examples[0].prompt])
    assert list(learner.trainable()) == learning
    assert np.array_equal(learner.score(examples), before)


def test_with_no_adapter_the_base_answers(adapted: Adapted, few_examples: Any) -> None:
    learner, base = adapted(per_stage="new"), adapted(kind="full")
    with torch.no_grad():
        for value in learner.trainable().values():
            value += 0.1
    examples = few_examples["near"]
    assert not np.allclose(learner.score(examples), base.score(examples))
    with answering_with(learner.model, []):
        assert np.array_equal(learner.score(examples), base.score(examples))


def test_a_centroid_is_taken_over_prompts_that_are_evenly_spaced(adapted: Adapted, few_examples: Any) -> None:
    learner = adapted(per_stage="new")
    examples = few_examples["near"]
    for limit, chosen in ((5, examples[::3]), (6, examples[::2]), (12, examples), (100, examples)):
        few = make_method("adapter-per-task", {"prompts": limit}, 0)
        few.begin(learner, Stage(1, ("near",), data={"near": examples}))
        exact = make_method("adapter-per-task", {}, 0)
        exact.begin(learner, Stage(1, ("near",), data={"near": chosen}))
        assert torch.equal(few.state_dict()["centroid.near"], exact.state_dict()["centroid.near"])


def test_the_base_is_asked_once_for_the_same_prompts_and_no_more_is_kept_than_is_allowed(
    adapted: Adapted, few_examples: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner, method = adapted(per_stage="new"), make_method("adapter-per-task", {}, 0)
    for number, (task, examples) in enumerate(few_examples.items(), start=1):
        method.begin(learner, Stage(number, (task,), data={task: examples[:8]}))
    asked: list[int] = []
    hidden = Learner.hidden

    def counted(self: Learner, prompts: Any, layer: int = -1) -> torch.Tensor:
        asked.append(len(prompts))
        return hidden(self, prompts, layer)

    monkeypatch.setattr(Learner, "hidden", counted)
    prompts = [example.prompt for example in few_examples["near"]]
    learner.reset_counts()
    first = method.route(learner, prompts)
    once = learner.counted()
    assert method.route(learner, prompts) == first
    assert asked == [12]
    assert learner.counted() == {name: 2 * n for name, n in once.items()}, "as if it had been asked again"
    assert once["computed"] > 0
    assert method.route(learner, prompts[:6]) == list(first or ())[:6]
    assert asked == [12, 6]
    monkeypatch.setattr(routing, "MOST_KEPT", 0)
    for _ in range(2):
        method.route(learner, prompts[:7])
    assert asked == [12, 6, 7, 7]


def test_before_anything_is_learned_nothing_is_routed(adapted: Adapted, few_examples: Any) -> None:
    prompts = [example.prompt for example in few_examples["near"]]
    assert make_method("adapter-per-task", {}, 0).route(adapted(kind="full"), prompts) is None


def test_what_cannot_be_told_apart_is_refused(learned: tuple[Learner, Method]) -> None:
    learner, method = learned
    with pytest.raises(UserError, match=r"plain text has none"):
        method.route(learner, [()])
    deep = make_method("adapter-per-task", {"layer": 7}, 0)
    deep.load_state_dict(method.state_dict())
    with pytest.raises(UserError, match=r"method\.layer: this model has 2 layers, and no layer 7"):
        deep.route(learner, [(5, 6)])
    with pytest.raises(UserError, match=r"adapter\.per_stage: this method works with new, not merge"):
        method.check(AdapterSettings(per_stage="merge"))
