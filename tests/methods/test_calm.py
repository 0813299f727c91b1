"""A small model and a bridge for each task: what learns from what, and what never changes."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

import forgetmenot
from forgetmenot.config import load_config
from forgetmenot.engine.augmenting_alone import augmenting_alone
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.precision import autocast
from forgetmenot.errors import UserError
from forgetmenot.methods import Method, Stage, make_method
from forgetmenot.methods.shared.routing import Routing
from forgetmenot.models.adapt import adapt
from forgetmenot.models.adapters.bridge import BRIDGE
from forgetmenot.models.composition import Bridge, bridge_of, compose
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting import Encoded
from forgetmenot.prompting.encoded import TokenSequence
from forgetmenot.runs.api import Run
from forgetmenot.runs.export import export
from forgetmenot.runs.rescore import rescore

Go = Callable[..., Run]
SMALL = {"evaluation.limit": 8, "training.limit": 16}
OWN, OTHER = "same tokens", "other tokens"


@pytest.fixture
def settings(request: pytest.FixtureRequest, tiny_llama: Path) -> AdapterSettings:
    """A bridge to a model with the learner's own tokens, or with other ones."""
    name = str(tiny_llama) if getattr(request, "param", OWN) == OWN else "quickstart-small"
    return AdapterSettings(kind="bridge", augmenting=name, connections=1, per_stage="new")


@pytest.fixture
def begun(learner: Learner, stage: Stage, settings: AdapterSettings) -> tuple[Learner, Method]:
    """In the first stage, with a bridge whose output is not zero any more."""
    learner.model = adapt(learner.model, settings, 1, seed=1)
    method = make_method("calm", {}, 0)
    method.adapt(learner, stage)
    method.begin(learner, stage)
    with torch.no_grad():
        for name, value in learner.trainable().items():
            if ".output." in name:
                value += 0.1 * torch.randn_like(value)
    return learner, method


def bridge_in(learner: Learner) -> Bridge:
    found = bridge_of(learner.model)
    assert found is not None
    return found


def likelihood(model: Any, sequence: TokenSequence) -> Tensor:
    """Of one sequence, by plain Transformers."""
    log_probs = model(input_ids=torch.tensor([sequence.tokens])).logits[0].log_softmax(-1)
    places = range(sequence.start, len(sequence.tokens))
    return torch.stack([log_probs[k - 1, sequence.tokens[k]] for k in places]).sum()


@pytest.mark.parametrize("settings", [OWN, OTHER], indirect=True)
def test_the_bridge_learns_from_the_composed_model_and_the_small_one_from_itself(
    begun: tuple[Learner, Method], examples: list[Encoded]
) -> None:
    learner, method = begun
    names = list(learner.trainable())
    assert any(".connections." in name for name in names)
    assert any(".augmenting." in name for name in names)
    assert all(".composition.bridges.0." in name for name in names)
    bridge = bridge_in(learner)
    answers = [example.answer for example in examples]
    loss = method.loss(learner, examples)
    composed = -learner.forward(answers).sum()
    small = torch.zeros(())
    for answer in answers:
        own = in_own_tokens(bridge, answer)
        terms = (len(answer.tokens) - answer.start) / (len(own.tokens) - own.start)
        small = small - terms * likelihood(bridge.augmenting, own)
    assert float(loss) == pytest.approx(float(composed + small), rel=1e-5)

    parameters = learner.trainable()
    found = torch.autograd.grad(loss, list(parameters.values()))
    of_bridge = torch.autograd.grad(composed, list(parameters.values()), allow_unused=True)
    of_small = torch.autograd.grad(small, list(parameters.values()), allow_unused=True)
    for name, value, one, other in zip(parameters, found, of_bridge, of_small, strict=True):
        assert (one is None) == (".augmenting." in name)
        assert (other is None) == (".connections." in name)
        torch.testing.assert_close(value, other if one is None else one, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("settings", [OWN, OTHER], indirect=True)
def test_in_bf16_the_small_model_gets_the_gradients_of_its_own_pass(
    begun: tuple[Learner, Method], examples: list[Encoded]
) -> None:
    """Autocast keeps a step's rounded weights, those that were rounded where no gradients were wanted too."""
    learner, method = begun
    learner.precision = "bf16"
    alone, own = augmenting_alone(learner, [example.answer for example in examples])
    lengths = [
        (len(one.answer.tokens) - one.answer.start) / (len(other.tokens) - other.start)
        for one, other in zip(examples, own, strict=True)
    ]
    parameters = dict(bridge_in(learner).augmenting.named_parameters())
    wanted = torch.autograd.grad(
        -(alone.forward(own) * torch.tensor(lengths)).sum(), list(parameters.values())
    )
    with autocast(learner.device, "bf16"):  # as a step does
        found = torch.autograd.grad(
            method.loss(learner, examples), list(parameters.values()), allow_unused=True
        )
    for name, one, other in zip(parameters, found, wanted, strict=True):
        assert one is not None, name
        torch.testing.assert_close(one, other, rtol=0.05, atol=0.01 * float(other.abs().max()))


def in_own_tokens(bridge: Bridge, answer: TokenSequence) -> TokenSequence:
    """The whole text and the prompt's text, tokenized; the answer is what they do not share."""
    if bridge.tokenizers is None:
        return answer
    anchor, own = bridge.tokenizers
    text = anchor.decode(answer.tokens, skip_special_tokens=True)
    prompt = anchor.decode(answer.tokens[: answer.start])
    whole, head = (own(one)["input_ids"] for one in (text, prompt))
    start = 0
    while start < len(head) and whole[start] == head[start]:
        start += 1
    return TokenSequence((*whole, own.eos_token_id), start)


@pytest.mark.parametrize("settings", [OTHER], indirect=True)
def test_alone_the_small_model_reads_the_same_text(
    begun: tuple[Learner, Method], examples: list[Encoded]
) -> None:
    learner, _ = begun
    bridge = bridge_in(learner)
    alone, own = augmenting_alone(learner, [example.answer for example in examples])
    assert alone.model is bridge.augmenting
    for example, found in zip(examples, own, strict=True):
        assert found == in_own_tokens(bridge, example.answer)
        text = alone.tokenizer.decode(found.tokens[: found.start], skip_special_tokens=True)
        assert text == learner.tokenizer.decode(example.prompt)


def test_without_tuning_it_is_the_likelihood_of_the_composed_model(
    learner: Learner, stage: Stage, settings: AdapterSettings, examples: list[Encoded]
) -> None:
    learner.model = adapt(learner.model, settings, 1, seed=1)
    method = make_method("calm", {"tune": False}, 0)
    method.adapt(learner, stage)
    assert all(".connections." in name for name in learner.trainable())
    plain = make_method("sequential", {}, 0)
    assert torch.equal(method.loss(learner, examples), plain.loss(learner, examples))


def test_later_tasks_change_no_bit_of_earlier_ones_nor_of_the_anchor(
    begun: tuple[Learner, Method], stage: Stage, settings: AdapterSettings, examples: list[Encoded]
) -> None:
    learner, method = begun
    answers = [example.answer for example in examples]
    with compose(learner.model).using(None):
        anchor = learner.log_likelihoods(answers)
    with method.routed(learner, "size"):
        first = learner.log_likelihoods(answers)
    assert not torch.equal(anchor, first)

    learner.model = adapt(learner.model, settings, 2, seed=2)
    method.adapt(learner, Stage(2, ("other",), data={"other": examples}))
    assert all(".composition.bridges.1." in name for name in learner.trainable())
    loss = method.loss(learner, examples)
    loss.backward()  # type: ignore[no-untyped-call]
    with torch.no_grad():
        for value in learner.trainable().values():
            value += 0.1
    assert isinstance(method, Routing)
    with method.as_base(learner):
        assert torch.equal(learner.log_likelihoods(answers), anchor)
    with method.routed(learner, "size"):
        assert torch.equal(learner.log_likelihoods(answers), first)
    with method.routed(learner, "other"):
        assert not torch.equal(learner.log_likelihoods(answers), first)


@pytest.mark.parametrize("tune", [True, False])
def test_a_run_keeps_each_task_and_is_scored_anew(
    go: Go, tiny_llama: Path, tmp_path: Path, tune: bool
) -> None:
    adapter = {"augmenting": str(tiny_llama), "connections": 1}
    run = go("run", {**SMALL, "method": {"name": "calm", "tune": tune}, "adapter": adapter})
    last = run.path / "stages/03-size/bridge"
    first = run.path / "stages/01-animal/bridge"
    assert sorted(path.name for path in last.glob("bridge-*")) == ["bridge-02", "bridge-03"]
    kept, learned = (load_file(folder / "bridge.safetensors") for folder in (last, first))
    assert all(torch.equal(kept[name], learned[name]) for name in learned)
    assert (last / "bridge-03/augmenting/model.safetensors").exists() == tune
    if tune:
        kept, learned = (load_file(folder / "augmenting/model.safetensors") for folder in (last, first))
        base = load_file(tiny_llama / "model.safetensors")
        assert all(torch.equal(kept[name], learned[name]) for name in learned)
        assert any(not torch.equal(kept[name], base[name]) for name in base)
    _, reading = rescore(run.path)
    assert reading["matrix"] == run.results["matrix"]
    with pytest.raises(UserError, match=r"calm, answers each prompt with the small model and the bridge"):
        export(run.path, "3", tmp_path / "out")


def test_a_small_model_that_is_rounded_is_tuned_and_read_back_unrounded(
    go: Go, tiny_llama: Path, tmp_path: Path
) -> None:
    """It learns in fp32, and later stages hold it so, also in a process that reads it from disk."""
    adapter = {"augmenting": {"name": str(tiny_llama), "dtype": "bf16"}, "connections": 1}
    config = {**SMALL, "method": "calm", "adapter": adapter, "training.learning_rate": 0.01}
    run = go("run", config)
    _, reading = rescore(run.path)
    assert reading["matrix"] == run.results["matrix"]
    shutil.rmtree(run.path / "stages/03-size")
    (run.path / "results.json").unlink()
    whole = load_file(run.path / "stages/02-colour/bridge/augmenting/model.safetensors")
    again = go("run", config)
    kept = load_file(again.path / "stages/03-size/bridge/augmenting/model.safetensors")
    assert kept.keys() == whole.keys()
    assert all(torch.equal(kept[name], whole[name]) and kept[name].dtype == torch.float32 for name in whole)


def test_bridges_are_read_in_the_order_of_their_numbers(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (2, 11, 100):
        (tmp_path / "bridge" / f"bridge-{number:02d}").mkdir(parents=True)
    read: list[str] = []
    monkeypatch.setattr(
        "forgetmenot.models.adapters.bridge.read_bridge", lambda base, folder: read.append(folder.name)
    )
    BRIDGE.load(torch.nn.Linear(1, 1), tmp_path, trainable=False)
    assert read == ["bridge", "bridge-02", "bridge-11", "bridge-100"]


def test_with_no_routing_mistake_and_no_tuning_it_is_single(
    go: Go, tiny_llama: Path, tiny_tasks: Mapping[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = {name: _words(path) for name, path in tiny_tasks.items()}

    def route(self: Routing, learner: Learner, prompts: Sequence[tuple[int, ...]]) -> Sequence[str] | None:
        texts = [learner.tokenizer.decode(prompt) for prompt in prompts]
        named = [next(name for name, own in words.items() if any(w in text for w in own)) for text in texts]
        known = list(self.centroids)
        return [name if name in known else known[0] for name in named] if known else None

    monkeypatch.setattr(Routing, "route", route)
    adapter = {"kind": "bridge", "augmenting": str(tiny_llama), "connections": 1}
    calm = go("calm", {**SMALL, "method": {"name": "calm", "tune": False}, "adapter": adapter})
    single = go("single", {**SMALL, "method": "single", "adapter": adapter})
    for k, task in enumerate(single.results["tasks"], start=1):
        learned, kept = (run.predictions(stage) for run, stage in ((single, k), (calm, 3)))
        one, other = (
            rows[rows["task"] == task]["log_likelihoods"].map(list).tolist() for rows in (learned, kept)
        )
        assert one == other


def _words(path: Path) -> set[str]:
    folder, data = path.parent, yaml.safe_load(path.read_text())["data"]
    lines = [line for file in data.values() for line in (folder / file).read_text().splitlines()]
    return {yaml.safe_load(line)["word"] for line in lines}


def test_it_takes_bridges_alone() -> None:
    config = load_config(None, {"method": "calm", "model": "quickstart", "tasks": "quickstart"})
    assert config.adapter.kind == "bridge"
    assert config.adapter.per_stage == "new"
    assert config.adapter.augmenting.name == "quickstart-small"
    with pytest.raises(UserError, match=r"adapter\.kind: this method works with bridge, not lora"):
        forgetmenot.run(
            {"method": "calm", "adapter.kind": "lora", "tasks": "quickstart", "model": "quickstart"}
        )
