"""Two processes over gloo against one: they share the work, and the numbers are the same."""

import copy
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from hypothesis import given
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch import Tensor

from forgetmenot import UserError
from forgetmenot.engine import ranks
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import Layout, pack, positions
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.engine.training import Step, fit
from forgetmenot.prompting.encoded import Encoded, TokenSequence
from tests.engine.test_generate import words

InProcesses = Callable[..., list[Any]]
SETTINGS = TrainingSettings(batch_size=8, schedule="constant", warmup_ratio=0)


@dataclass
class Answers:
    """The plain objective with a pull of all weights to zero, and the gradient of the first step."""

    pull: float = 0.0
    gradient: dict[str, Tensor] = field(default_factory=dict)

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        return -learner.forward([example.answer for example in batch]).sum()

    def penalty(self, learner: Learner) -> Tensor | None:
        squares = sum((p.square().sum() for p in learner.trainable().values()), torch.zeros(()))
        return self.pull * squares / 2 if self.pull else None

    def gradients(self, learner: Learner) -> None:
        if not self.gradient:
            self.gradient = {n: p.grad.clone() for n, p in learner.trainable().items() if p.grad is not None}

    def stepped(self, learner: Learner) -> None: ...


class InDouble(Answers):
    """The same, with the loss in fp64 throughout: the engine's own head is fp32."""

    def loss(self, learner: Learner, batch: Sequence[Encoded]) -> Tensor:
        total = torch.zeros((), dtype=torch.float64)
        for example in batch:
            tokens = torch.tensor(example.answer.tokens)
            log_probs = learner.model(input_ids=tokens[None, :-1]).logits[0].log_softmax(-1)
            taken = log_probs[torch.arange(len(tokens) - 1), tokens[1:]]
            total = total - taken[example.answer.start - 1 :].sum()
        return total


@dataclass(frozen=True)
class Trained:
    gradient: Tensor
    weights: Tensor
    steps: list[Step]
    counts: dict[str, int]


def train(model: Any, examples: Sequence[Encoded], objective: Answers, count: int) -> Trained:
    """Train a copy on the first so many examples; gradient of the first step and last weights, flat."""
    learner = Learner(copy.deepcopy(model), tokenizer=None, budget=64)
    steps: list[Step] = []
    fit(
        learner,
        examples[:count],
        objective,
        SETTINGS,
        accelerator=Accelerator(cpu=True),
        epochs=1,
        learning_rate=1e-3,
        seed=3,
        on_step=steps.append,
    )
    gradient = torch.cat([g.flatten() for g in objective.gradient.values()])
    weights = torch.cat([p.detach().flatten() for p in learner.trainable().values()])
    return Trained(gradient, weights, steps, learner.counted())


def with_adapter(model: Any) -> Any:
    torch.manual_seed(0)
    adapted = get_peft_model(copy.deepcopy(model), LoraConfig(target_modules="all-linear", r=2))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)  # LoRA's zeros would leave half the gradient zero
    return adapted


def test_two_processes_train_as_one(llama: Any, examples: list[Encoded], in_processes: InProcesses) -> None:
    """Gradients to 1e-5 of their norm; five fp64 steps to 1e-10, with a penalty that is added once."""
    tasks: dict[str, Callable[[], Trained]] = {
        "full": lambda: train(llama, examples, Answers(), 8),
        "lora": lambda: train(with_adapter(llama), examples, Answers(), 8),
        "one example": lambda: train(llama, examples, Answers(), 1),
        "full, fp64": lambda: train(copy.deepcopy(llama).double(), examples * 2, InDouble(pull=0.1), 40),
        "lora, fp64": lambda: train(with_adapter(llama).double(), examples * 2, InDouble(pull=0.1), 40),
    }

    def all_of_them() -> dict[str, Trained]:
        ranks.join()
        return {name: task() for name, task in tasks.items()}

    one = {name: task() for name, task in tasks.items()}
    first, second = in_processes(all_of_them)
    for name, alone in one.items():
        error = (first[name].gradient - alone.gradient).norm() / alone.gradient.norm()
        assert error < (1e-12 if "fp64" in name else 1e-5), name
        assert torch.equal(first[name].weights, second[name].weights), name
        assert first[name].steps == second[name].steps
        assert len(alone.steps) == (5 if "fp64" in name else 1)
        for step, wanted in zip(first[name].steps, alone.steps, strict=True):
            assert step.loss == pytest.approx(wanted.loss, rel=1e-5)
            assert step.gradient_norm == pytest.approx(wanted.gradient_norm, rel=1e-5)
        if "fp64" in name:
            assert float((first[name].weights - alone.weights).abs().max()) < 1e-10
            assert first[name].steps[-1].loss == pytest.approx(alone.steps[-1].loss, rel=1e-12)


def test_one_of_two_processes_computes_alone(
    llama: Any, sequences: list[TokenSequence], in_processes: InProcesses
) -> None:
    def score() -> Any:
        ranks.join()

        def found() -> Any:
            with ranks.alone():
                assert (ranks.world_size(), ranks.writes()) == (1, True)
                return Learner(llama, words(1, None), budget=48).log_likelihoods(sequences)

        told = ranks.agreed(found)
        return told, ranks.world_size(), ranks.rank()

    wanted = Learner(llama, words(1, None), budget=48).log_likelihoods(sequences)
    for rank, (told, size, own) in enumerate(in_processes(score)):
        assert torch.equal(told, wanted)
        assert (size, own) == (2, rank)


def test_two_processes_score_as_one(
    llama: Any, sequences: list[TokenSequence], examples: list[Encoded], in_processes: InProcesses
) -> None:
    prompts = [sequence.tokens for sequence in sequences] * 3
    advanced: list[int] = []

    def score() -> dict[str, Any]:
        ranks.join()
        learner = Learner(llama, words(1, None), budget=48)
        scores = learner.log_likelihoods(sequences, advanced.append)
        told = sum(advanced)
        return {
            "log-likelihoods": scores,
            "told": told,
            "counts": learner.counted(),
            "candidates": learner.score(examples),
            "texts": learner.generate(prompts, 5),
            "own": learner.counts["computed"],
        }

    one = score()
    advanced.clear()
    first, second = in_processes(score)
    for two in (first, second):
        assert torch.equal(two["log-likelihoods"], one["log-likelihoods"])
        assert all((a == b).all() for a, b in zip(two["candidates"], one["candidates"], strict=True))
        assert two["texts"] == one["texts"]
        assert two["counts"] == one["counts"]
        assert two["own"] < 0.7 * one["own"]
    assert first["told"] == one["told"] == len(sequences)


def test_what_processes_tell_one_another(in_processes: InProcesses) -> None:
    def body() -> dict[str, Any]:
        before = ranks.world_size(), ranks.rank(), ranks.writes(), ranks.speaks()
        ranks.join()
        me = ranks.rank()
        parameters = [torch.nn.Parameter(torch.zeros(3)) for _ in range(3)]
        parameters[0].grad = torch.full((3,), 1.0 + me)
        parameters[1].grad = torch.ones(3) if me == 1 else None
        ranks.sum_gradients(parameters)
        found = {
            "before": before,
            "size": ranks.world_size(),
            "writes": ranks.writes(),
            "total": ranks.all_reduce(torch.tensor([1.5, me])).tolist(),
            "agreed": ranks.agreed(lambda: f"rank {me} looked"),
            "gathered": ranks.gathered({me: "a", me + 2: "b"}),
            "gradients": [p.grad if p.grad is None else p.grad.tolist() for p in parameters],
            "speaks": sum(ranks.speaks() for _ in range(3)),
        }
        ranks.check_alike(parameters)
        try:
            ranks.check_alike([torch.tensor([1.0, me])])
        except RuntimeError as error:
            found["differs"] = str(error)
        ranks.wait()
        ranks.leave()
        return found

    found = in_processes(body)
    assert [one["before"] for one in found] == [(1, 0, True, True), (1, 0, True, False)]
    assert [one["writes"] for one in found] == [True, False]
    assert sum(one["speaks"] for one in found) == 1
    assert "differs" not in found[0]
    assert "weights differ" in found[1]["differs"]
    for one in found:
        assert one["size"] == 2
        assert one["total"] == [3.0, 1.0]
        assert one["agreed"] == "rank 0 looked"
        assert one["gathered"] == {0: "a", 1: "a", 2: "b", 3: "b"}
        assert one["gradients"] == [[3.0] * 3, [1.0] * 3, None]


def test_alone_there_is_nothing_to_do() -> None:
    parameter = torch.nn.Parameter(torch.zeros(2))
    ranks.sum_gradients([parameter])
    ranks.wait()
    assert parameter.grad is None
    assert ranks.all_reduce(torch.ones(2)).tolist() == [1, 1]
    assert ranks.gathered({3: "c"}) == {3: "c"}
    assert [(turn.pack, turn.counts, turn.dealt) for turn in ranks.turns([5, 9])] == [
        (0, True, (0,)),
        (1, True, (1,)),
    ]


@given(st.lists(st.integers(1, 500), max_size=40), st.integers(1, 9))
def test_packs_are_dealt_evenly(sizes: list[int], hands: int) -> None:
    dealt = ranks.deal(sizes, hands)
    assert sorted(k for hand in dealt for k in hand) == list(range(len(sizes)))
    assert all(hand == sorted(hand) for hand in dealt)
    assert max(len(hand) for hand in dealt) == len(dealt[0]) == -(-len(sizes) // hands)
    alike = ranks.deal([7] * len(sizes), hands)
    assert len(alike[0]) - len(alike[-1]) <= 1
    assert ranks.deal(sizes, 1) == [list(range(len(sizes)))]


def test_the_large_packs_go_to_different_processes() -> None:
    assert ranks.deal([100, 90, 10, 5], 2) == [[0, 3], [1, 2]]


@pytest.mark.parametrize("layout", ["trie", "blocks", "padded"])
def test_positions_are_those_of_the_pack(sequences: list[TokenSequence], layout: Layout) -> None:
    for part in (sequences, sequences[3:4], sequences[::2]):
        assert positions(part, layout) == pack(part, layout).nodes


@pytest.mark.parametrize(
    ("asked", "complaint"),
    [
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, "DeepSpeed is not supported"),
        (
            {
                "ACCELERATE_USE_FSDP": "true",
                "FSDP_VERSION": "2",
                "FSDP_CPU_RAM_EFFICIENT_LOADING": "true",
                "FSDP_SYNC_MODULE_STATES": "true",
            },
            "FSDP was requested but has no effect on CPUs",
        ),
        ({"ACCELERATE_MIXED_PRECISION": "bf16"}, "set training.precision instead"),
    ],
    ids=["deepspeed", "fsdp", "mixed precision"],
)
def test_what_would_have_no_effect_is_refused(
    in_processes: InProcesses, asked: dict[str, str], complaint: str
) -> None:
    def body() -> str:
        os.environ |= asked
        with pytest.raises(UserError) as error:
            ranks.join()
        return str(error.value)

    assert all(complaint in sentence for sentence in in_processes(body))


def test_settings_of_fsdp_that_would_have_no_effect_are_refused() -> None:
    def launched(kind: str = "FSDP", is_fsdp2: bool = True, **changed: bool) -> Any:
        plugin = {"activation_checkpointing": False, "cpu_ram_efficient_loading": False, **changed}
        state = SimpleNamespace(fsdp_plugin=SimpleNamespace(**plugin))
        return SimpleNamespace(distributed_type=DistributedType(kind), is_fsdp2=is_fsdp2, state=state)

    ranks._check_fsdp(launched())
    for refused, complaint in [
        (launched("NO"), "has no effect in a process"),
        (launched(is_fsdp2=False), "only version 2"),
        (launched(activation_checkpointing=True), "training.activation_checkpointing"),
        (launched(cpu_ram_efficient_loading=True), "--fsdp_cpu_ram_efficient_loading false"),
    ]:
        with pytest.raises(UserError, match=complaint):
            ranks._check_fsdp(refused)


def test_half_an_import_of_torch_has_joined_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A signal that cuts its import off leaves parts of it, and importing it again fails."""
    monkeypatch.delitem(sys.modules, "torch")
    assert "torch.distributed" in sys.modules
    assert ranks.speaks()
