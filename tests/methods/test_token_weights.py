"""Answer tokens that weigh more or less: the right weights, against plain passes one example at a time."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LlamaForCausalLM

from forgetmenot.engine.head import picked_and_entropy
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.objectives import batch_loss
from forgetmenot.engine.pack import Layout
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.prompting import Encoded

Shaken = Callable[..., None]
Plain = Callable[[Any, Encoded], Tensor]
"""From a model and an example to the logits that predict its answer's tokens [tokens, vocabulary]."""


def plain(model: Any, example: Encoded) -> Tensor:
    tokens, start = example.answer.tokens, example.answer.start
    logits: Tensor = model(input_ids=torch.tensor([tokens])).logits[0, start - 1 : -1]
    return logits


def losses(model: Any, example: Encoded) -> Tensor:
    answer = torch.tensor(example.answer.tokens[example.answer.start :])
    return F.cross_entropy(plain(model, example), answer, reduction="none")


def dft(now: Any, before: Any, examples: Sequence[Encoded]) -> Tensor:
    found = torch.cat(each(now, examples))
    return ((-found).exp().detach() * found).sum()


def asft(now: Any, before: Any, examples: Sequence[Encoded]) -> Tensor:
    drifts = []
    for example in examples:
        with torch.no_grad():
            base = plain(before, example).softmax(-1)
        drifts.append(F.kl_div(plain(now, example).log_softmax(-1), base, reduction="sum"))
    return dft(now, before, examples) + 0.05 * torch.stack(drifts).sum()


def eaft(now: Any, before: Any, examples: Sequence[Encoded]) -> Tensor:
    total = torch.zeros(())
    for example in examples:
        likeliest = plain(now, example).detach().softmax(-1).sort(descending=True).values[:, :20]
        p = likeliest / likeliest.sum(-1, keepdim=True)
        total = total + (-(p * p.log()).sum(-1) / np.log(20) * losses(now, example)).sum()
    return total


def stm(now: Any, before: Any, examples: Sequence[Encoded]) -> Tensor:
    total = torch.zeros(())
    for example in examples:
        with torch.no_grad():
            perplexity = losses(before, example).exp()
        total = total + losses(now, example)[perplexity <= THRESHOLD].sum()
    return total


def flow(now: Any, before: Any, examples: Sequence[Encoded]) -> Tensor:
    with torch.no_grad():
        cost = torch.stack([loss.mean() for loss in each(before, examples)]).double()
    weights = (-cost / np.median(cost.numpy())).exp()
    return torch.stack([w * loss.sum() for w, loss in zip(weights, each(now, examples), strict=True)]).sum()


def each(model: Any, examples: Sequence[Encoded]) -> list[Tensor]:
    return [losses(model, example) for example in examples]


THRESHOLD = 300.0  # about the tiny model's vocabulary: some of its tokens lie on either side
OPTIONS: dict[str, dict[str, Any]] = {"stm": {"threshold": THRESHOLD}}
ORACLES = {"dft": dft, "asft": asft, "eaft": eaft, "stm": stm, "flow": flow}


def gradient(loss: Tensor, model: Any) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def passed(method: Any, learner: Learner, examples: Sequence[Encoded]) -> tuple[float, Tensor]:
    """A method's loss and its gradient."""
    loss = method.loss(learner, examples)
    return loss.item(), gradient(loss, learner.model)


@pytest.mark.parametrize("layout", ["trie", "blocks", "padded"])
@pytest.mark.parametrize("name", ORACLES)
def test_loss_and_gradient_are_those_of_plain_passes(
    name: str, layout: Layout, learner: Learner, stage: Stage, examples: list[Encoded], shaken: Shaken
) -> None:
    """The model has moved since the stage began, and the batch is cut into packs that share beginnings."""
    before = LlamaForCausalLM(learner.model.config)
    before.load_state_dict(learner.model.state_dict())
    method = make_method(name, OPTIONS.get(name, {}), seed=0)
    learner.layout = learner.training_layout = layout
    method.begin(learner, stage)
    shaken(0.1)
    wanted = ORACLES[name](learner.model, before, examples)
    expected = gradient(wanted, learner.model)
    learner.budget = 64
    parts = [[examples[k] for k in indices] for indices in learner.cut([one.answer for one in examples])]
    assert len(parts) > 1
    total, found = 0.0, torch.zeros_like(expected)
    for part in parts:
        value, pull = passed(method, learner, part)
        total, found = total + value, found + pull
    assert total == pytest.approx(wanted.item(), rel=1e-5)
    assert (found - expected).norm() < 1e-5 * expected.norm()
    same = batch_loss(learner, examples).item()
    assert abs(total - same) > 0.01 * same


@pytest.mark.parametrize(
    ("name", "options", "limit"),
    [
        ("dft", {"power": 0}, "sequential"),
        ("eaft", {"power": 0}, "sequential"),
        ("stm", {"threshold": 1e30}, "sequential"),
        ("stm", {"share": 0}, "sequential"),
        ("flow", {"temperature": 1e30}, "sequential"),
        ("asft", {"strength": 0}, "dft"),
        ("asft", {"strength": 0.1, "power": 0}, "kl"),
    ],
)
def test_in_the_limit_it_is_another_method_to_the_bit(
    name: str,
    options: dict[str, Any],
    limit: str,
    learner: Learner,
    stage: Stage,
    examples: list[Encoded],
    shaken: Shaken,
) -> None:
    methods = [make_method(name, options, seed=0), make_method(limit, {}, seed=0)]
    for method in methods:
        method.begin(learner, stage)
    shaken(0.1)
    for average in ("token", "example"):
        learner.loss_average = average
        (found, pull), (wanted, expected) = (passed(method, learner, examples) for method in methods)
        assert found == wanted
        assert torch.equal(pull, expected)


def test_dft_is_trls_own(
    learner: Learner, examples: list[Encoded], shaken: Shaken, tiny_tokenizer: Any, tmp_path: Path
) -> None:
    """By TRL's trainer with `loss_type: dft`, and its collator."""
    trl = pytest.importorskip("trl", reason="the loss is held against TRL, of the extra bench")
    from datasets import Dataset
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    shaken(0.1)
    config = trl.SFTConfig(
        output_dir=str(tmp_path),
        loss_type="dft",
        report_to=[],
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
    )
    words = Dataset.from_list([{"prompt": "a", "completion": "b"}] * 2)
    trainer = trl.SFTTrainer(
        model=learner.model, args=config, train_dataset=words, processing_class=tiny_tokenizer
    )
    rows = []
    for example in examples:
        tokens, start = list(example.answer.tokens), example.answer.start
        rows.append({"input_ids": tokens, "labels": [-100] * start + tokens[start:]})
    collated = DataCollatorForLanguageModeling(pad_token_id=0)(rows)
    wanted = trainer.compute_loss(learner.model, collated)
    expected = gradient(wanted, learner.model)
    found = make_method("dft", {}, seed=0).loss(learner, examples)
    found = found / sum(len(e.answer.tokens) - e.answer.start for e in examples)
    assert found.item() == pytest.approx(wanted.item(), rel=1e-5)
    assert (gradient(found, learner.model) - expected).norm() < 1e-5 * expected.norm()


def test_entropy_is_a_share_of_its_maximum_over_the_likeliest_and_has_no_gradient() -> None:
    logits = torch.zeros(3, 50)
    logits[1, 7], logits[2, :2] = 100.0, 100.0  # sure of one token; of one of two
    logits.requires_grad_()
    rows, targets = torch.tensor([0, 1, 2, 2]), torch.tensor([3, 3, 3, 1])
    found = picked_and_entropy(logits, rows, targets, top=20)
    share = np.log(2) / np.log(20)
    assert found[:, 1].tolist() == pytest.approx([1.0, 0.0, share, share], abs=1e-6)
    assert torch.allclose(found[:, 0], logits.log_softmax(-1)[rows, targets])
    (pull,) = torch.autograd.grad(found[:, 1].sum(), logits, retain_graph=True, allow_unused=True)
    assert not pull.any()
    few = picked_and_entropy(logits[:, :4], rows, targets, top=20)  # of a vocabulary of four
    assert few[0, 1].item() == pytest.approx(1.0)


def test_stm_says_how_much_it_leaves_out_and_refuses_to_leave_out_all(learner: Learner, stage: Stage) -> None:
    method = make_method("stm", {"threshold": THRESHOLD}, seed=0)
    method.begin(learner, stage)
    costs = torch.cat([losses(learner.model, one).detach() for one in stage.data["size"]])
    left_out = (costs.exp() > THRESHOLD).float().mean().item()
    assert 0.1 < left_out < 0.9
    assert method.notes == [
        f"{left_out:.0%} of the answer tokens counted for nothing: their perplexity before the stage was "
        "above 300."
    ]
    with pytest.raises(UserError, match=r"stage 01-size: every answer token .* method\.threshold \(2\.5\)"):
        make_method("stm", {}, seed=0).begin(learner, stage)


def test_stm_leaves_out_a_share_of_the_tokens_those_of_the_highest_perplexity(
    learner: Learner, stage: Stage
) -> None:
    method: Any = make_method("stm", {"share": 0.25}, seed=0)
    method.begin(learner, stage)
    marks = torch.cat(list(method.learned.values()))
    costs = torch.cat([losses(learner.model, one).detach() for one in stage.data["size"]])
    assert int((~marks).sum()) == len(costs) // 4
    assert costs[marks].max() < costs[~marks].min()
    with pytest.raises(UserError, match="takes the place of threshold"):
        make_method("stm", {"share": 0.25, "threshold": 3}, seed=0)


def test_flow_weighs_what_costs_nothing_by_one(
    learner: Learner, stage: Stage, examples: list[Encoded], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the median is nothing, by which the losses would be divided."""
    costly = examples[0].id

    def present(sequences: Sequence[Any]) -> Tensor:
        return torch.cat(
            [
                torch.full((len(s.tokens) - s.start,), -1.0 if s == examples[0].answer else 0.0)
                for s in sequences
            ]
        )

    monkeypatch.setattr(learner, "token_log_likelihoods", present)
    method: Any = make_method("flow", {}, seed=0)
    method.begin(learner, replace(stage, data={"size": examples}))
    assert method.weights.pop(costly) == 0.0
    assert set(method.weights.values()) == {1.0}


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("dft", {"power": -1}, r"method\.power"),
        ("eaft", {"top": 1}, r"method\.top"),
        ("stm", {"threshold": 0.5}, r"method\.threshold"),
        ("stm", {"share": 1}, r"method\.share"),
        ("flow", {"temperature": 0}, r"method\.temperature"),
        ("asft", {"strength": -1}, r"method\.strength"),
    ],
)
def test_options_out_of_bounds_are_refused(name: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_method(name, options, seed=0)
