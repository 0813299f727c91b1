"""OGD and GPM: the directions that they keep, and that no step goes there, whatever the optimizer does."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import GPT2Config, GPT2LMHeadModel

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.shared.layer_inputs import extend, input_grams
from forgetmenot.models.adapt import adapt, finish_stage
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting import Encoded
from tests.methods.stages import inputs_alone, learn, through_disk

Adapted = Callable[..., Learner]
Few = Mapping[str, list[Encoded]]


def flat(values: Mapping[str, Tensor]) -> Tensor:
    return torch.cat([value.detach().flatten().double() for value in values.values()])


class Pulled(Learner):
    """A linear layer; each example pulls with a gradient of its own, which its id numbers."""

    def __init__(self, pulls: np.ndarray) -> None:
        super().__init__(nn.Linear(2, 3), None, 512)
        self.pulls = torch.from_numpy(pulls).float()

    def gradient_of(self, examples: Any, weights: Any = None) -> dict[str, Tensor]:
        weight, bias = torch.split(self.pulls[int(examples[0].id)], [6, 3])
        return {"weight": weight.view(3, 2).clone(), "bias": bias.clone()}


def test_ogd_keeps_an_orthonormal_basis_of_the_gradients(few_examples: Few) -> None:
    draw = np.random.default_rng(0)
    pulls = draw.normal(size=(8, 9)) * 10.0 ** draw.uniform(-3, 3, size=(8, 1))
    pulls[5:] = draw.normal(size=(3, 5)) @ (pulls[:5] / np.linalg.norm(pulls[:5], axis=1, keepdims=True))
    pulls[7] = 0
    learner, method = Pulled(pulls), make_method("ogd", {"memory": 4}, seed=0)
    made = [Encoded(str(k), (), few_examples["near"][0].answer, (1,), None, 0) for k in range(8)]
    for number in range(2):
        method.end(learner, Stage(number, ("task",), data={"task": made[4 * number :][:4]}))
    basis = torch.cat([method.state_dict()[f"basis.{n}"].flatten(1) for n in ("weight", "bias")], 1).numpy()
    assert basis.shape == (5, 9)  # the gradients span no more
    assert basis @ basis.T == pytest.approx(np.eye(5), abs=1e-5)
    orthonormal, _ = np.linalg.qr(pulls[:5].T)
    gradient = draw.normal(size=9)
    expected = gradient - orthonormal @ (orthonormal.T @ gradient)
    for parameter, part in zip(("weight", "bias"), np.split(gradient, [6]), strict=True):
        p = learner.trainable()[parameter]
        p.grad = torch.from_numpy(part).float().view(p.shape)
    method.gradients(learner)
    assert flat(learner.gathered()).numpy() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("adapter", [{}, {"kind": "full"}], ids=["lora", "full"])
def test_with_ogd_no_stage_moves_along_a_remembered_gradient(
    adapter: dict[str, Any], adapted: Adapted, few_examples: Few, tmp_path: Path
) -> None:
    """Through AdamW and weight decay, which alone would leave the subspace."""
    along = {}
    for name, options in (("ogd", {"memory": 6}), ("sequential", {})):
        learner = adapted(**adapter)
        method = make_method(name, options, seed=0)
        learn(method, learner, 1, "near", few_examples["near"][:6])
        remembered = [flat(learner.gradient_of([example])) for example in few_examples["near"][:6]]
        before = flat(learner.snapshot())
        learn(through_disk(method, name, tmp_path, **options), learner, 2, "far", few_examples["far"])
        step = flat(learner.snapshot()) - before
        along[name] = max(float((g @ step).abs() / (g.norm() * step.norm())) for g in remembered)
    assert along["ogd"] < 1e-5
    assert along["sequential"] > 1e-3


@settings(deadline=None, max_examples=40)
@given(
    st.integers(2, 7),
    st.lists(st.integers(1, 12), min_size=1, max_size=3),
    st.floats(0, 1),
    st.integers(0, 99),
)
def test_gpm_adds_the_fewest_directions_that_hold_the_threshold(
    width: int, counts: list[int], threshold: float, seed: int
) -> None:
    """Against the paper's own way: singular vectors of what the basis leaves of the inputs."""
    draw = np.random.default_rng(seed)
    basis = None
    expected = np.empty((width, 0))
    for count in counts:
        inputs = draw.normal(size=(width, count)) * 10.0 ** draw.uniform(-1, 1, size=(width, 1))
        basis = extend(basis, torch.from_numpy(inputs @ inputs.T), threshold)
        rest = inputs - expected @ (expected.T @ inputs)
        left, sizes, _ = np.linalg.svd(rest, full_matrices=False)
        held = (inputs**2).sum() - (rest**2).sum()
        needed = 0
        while held + (sizes[:needed] ** 2).sum() < threshold * (inputs**2).sum() * (1 - 1e-9):
            needed += 1
        expected = np.column_stack([expected, left[:, :needed]])
    assert basis is not None
    found = basis.double().numpy()
    assert found.T @ found == pytest.approx(np.eye(found.shape[1]), abs=1e-5)
    assert found @ found.T == pytest.approx(expected @ expected.T, abs=1e-4)


@pytest.mark.parametrize(
    "adapter",
    [{"kind": "full"}, {"per_stage": "new"}, {"per_stage": "merge"}],
    ids=["full", "kept", "merged"],
)
def test_at_threshold_one_gpm_answers_the_past_as_before(
    adapter: dict[str, Any], adapted: Adapted, few_examples: Few, tmp_path: Path
) -> None:
    """Layer by layer the inputs stay, so the answers do, however far the new task moves the weights."""
    past, new = few_examples["near"][:2], few_examples["far"]
    changed = {}
    for name, options in (("gpm", {"threshold": 1}), ("sequential", {})):
        learner, method = adapted(**adapter), make_method(name, options, seed=0)
        chosen = AdapterSettings(**adapter)
        learn(method, learner, 1, "near", past)
        learner.model = finish_stage(learner.model, chosen)
        before, unlearned = learner.score(past), learner.log_likelihoods([e.answer for e in new]).sum()
        learner.model = adapt(learner.model, chosen, 2, seed=1)
        learn(through_disk(method, name, tmp_path, **options), learner, 2, "far", new)
        assert learner.log_likelihoods([e.answer for e in new]).sum() > unlearned + 10  # it does learn
        changed[name] = float(np.abs(np.array(learner.score(past)) - np.array(before)).max())
    assert changed["gpm"] < 1e-3
    assert changed["sequential"] > 0.1


def test_gpm_knows_layers_that_hold_their_weights_transposed(few_examples: Few, tmp_path: Path) -> None:
    """GPT-2's: inputs by outputs; and a head that is the embeddings is no layer of its own."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    learner = Learner(GPT2LMHeadModel(config).eval(), None, 512)
    method = make_method("gpm", {"threshold": 1}, seed=0)
    past = few_examples["near"][:2]
    learn(method, learner, 1, "near", past)
    before = learner.score(past)
    learner.model.requires_grad_(True)
    learn(through_disk(method, "gpm", tmp_path, threshold=1), learner, 2, "far", few_examples["far"])
    assert "transformer.wte.weight" not in learner.trainable()
    assert "transformer.h.0.mlp.c_fc.weight" in learner.trainable()
    assert np.array(learner.score(past)) == pytest.approx(np.array(before), abs=1e-3)


@pytest.mark.parametrize("budget", [16, 64, 512])
@pytest.mark.parametrize("layout", ["trie", "blocks", "single", "padded"])
def test_what_gpm_protects_is_the_same_however_sequences_are_packed(
    layout: Any, budget: int, adapted: Adapted, few_examples: Few
) -> None:
    examples = [*few_examples["near"], few_examples["near"][0]]  # one comes twice
    learner = adapted(kind="full")
    learner.layout, learner.budget = layout, budget
    wanted = inputs_alone(learner, examples)
    method: Any = make_method("gpm", {"threshold": 0.9}, seed=0)
    found = input_grams(learner, examples, dict(pair for _, pair in method._layers(learner)))
    assert wanted.keys() == found.keys()
    assert "lm_head" in wanted
    for layer, gram in wanted.items():
        assert torch.allclose(found[layer], gram, rtol=1e-4, atol=1e-5 * float(gram.abs().max())), layer
        assert extend(None, found[layer], 0.9).shape == extend(None, gram, 0.9).shape


@pytest.mark.parametrize("name", ["ogd", "gpm"])
def test_the_directions_lie_where_the_model_is_while_a_stage_trains(name: str) -> None:
    """A step needs them twice; loaded from a file they lie on the CPU."""
    method: Any = make_method(name, {}, seed=0)
    method.load_state_dict({"basis.w": torch.eye(3)})
    method.begin(Learner(nn.Linear(2, 3, device="meta"), None, 512), Stage(2, ("far",)))
    assert method.basis["w"].device.type == "meta"


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [("ogd", "memory", -1), ("gpm", "threshold", 1.1), ("gpm", "examples", 0)],
)
def test_options_are_checked(name: str, option: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"^method\.{option}: "):
        make_method(name, {option: value}, 0)
