"""Stages of other objectives among those that answer: raw text and preferences, learned and scored."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import METHODS, Method
from forgetmenot.prompting.encoded import Encoded
from forgetmenot.runs.api import Run
from forgetmenot.runs.rescore import rescore

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]
PAIRS = [
    {"word": f"thing {k}", "good": "fine and well" if k % 2 else "fine", "bad": "bad"} for k in range(30)
]


@pytest.fixture
def stages(make_task: Callable[..., Path], tiny_tasks: Mapping[str, Path]) -> dict[str, Any]:
    """A choice, then raw text, then preferences."""
    texts = [{"body": f"The tabby number {k} sleeps."} for k in range(30)]
    text = make_task("reading", texts[:24], texts[24:], text="body")
    prompts = {"default": {"template": "Say of {{ word }}:"}}
    pairs = make_task("manners", PAIRS[:24], PAIRS[24:], chosen="good", rejected="bad", prompts=prompts)
    return {
        "tasks": [str(tiny_tasks["animal"]), str(text), str(pairs)],
        "adapter": {"kind": "full"},
        "training.learning_rate": 0.005,
        "training.epochs": 8,
        "training.limit": 20,
        "evaluation.limit": 12,
    }


def test_each_stage_learns_by_its_own_objective(go: Go, stages: Mapping[str, Any]) -> None:
    run = go("run", stages)
    assert run.results["metrics"] == {"animal": "accuracy", "reading": "loss", "manners": "preference"}
    assert run.results["majority"]["manners"] == 0.5, "a coin"
    reading, manners = run.matrix["reading"], run.matrix["manners"]
    assert reading["02-reading"] > reading["01-animal"] + 0.5  # nats for each token
    assert manners["03-manners"] == 1.0
    losses = [
        json.loads(line)["loss"]
        for line in (run.path / "stages/03-manners/training.jsonl").read_text().splitlines()
    ]
    assert losses[0] == pytest.approx(0.6931, abs=1e-3)
    assert losses[-1] < losses[0]
    _, read_again = rescore(run.path)
    assert read_again["matrix"] == run.results["matrix"]


def test_a_pair_is_won_by_the_likelier_answer_with_its_end(
    go: Go, stages: Mapping[str, Any], tiny_llama: Path
) -> None:
    """By Transformers alone, on the saved model, one text at a time."""
    run = go("run", stages)
    model = AutoModelForCausalLM.from_pretrained(run.path / "stages/03-manners/model").eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)

    def total(prompt: str, answer: str) -> float:
        start = len(tokenizer(prompt).input_ids)
        tokens = torch.tensor([[*tokenizer(prompt + answer).input_ids, tokenizer.eos_token_id]])
        with torch.no_grad():
            log_probs = model(tokens).logits[0].log_softmax(-1)
        return sum(float(log_probs[p - 1, tokens[0, p]]) for p in range(start, tokens.shape[1]))

    rows = run.predictions(3)
    for one, row in zip(PAIRS[24:], rows[rows["task"] == "manners"].to_dict("records"), strict=True):
        scores = [total(f"Say of {one['word']}:", f" {one[name]}") for name in ("good", "bad")]
        assert list(row["log_likelihoods"]) == pytest.approx(scores, abs=1e-3)
        assert row["gold"] == "chosen"
        assert row["predicted"] == ("chosen" if scores[0] > scores[1] else "rejected")


def test_it_goes_on_from_disk_as_undisturbed(go: Go, stages: Mapping[str, Any], same: Same) -> None:
    go("grown", {**stages, "tasks": stages["tasks"][:2]})
    same(go("undisturbed", stages), go("grown", stages))


REFUSED = {
    "a loss of its own": ("lwf", "method lwf has a loss or gradients of its own"),
    "weights for answer tokens": ("dft", "method dft has a loss or gradients of its own"),
    "gradients of its own": ("agem", "method agem has a loss or gradients of its own"),
    "past answers beside pairs": ("replay", "replay would train on preferences .manners. and on answers"),
    "all at once": ("joint", "joint would train on preferences .manners. and on answers"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_train_pairs_by_another_loss_is_refused(
    go: Go, stages: Mapping[str, Any], case: str
) -> None:
    method, said = REFUSED[case]
    with pytest.raises(UserError, match=said):
        go("refused", {**stages, "method": method, "model": "no/such-model"})


def test_past_pairs_are_replayed_among_pairs(go: Go, stages: Mapping[str, Any], make_task: Any) -> None:
    prompts = {"default": {"template": "Of {{ word }} say:"}}
    more = make_task("tact", PAIRS[:24], PAIRS[24:], chosen="good", rejected="bad", prompts=prompts)
    tasks = [stages["tasks"][2], str(more)]
    run = go("run", {**stages, "tasks": tasks, "method": {"name": "replay", "memory": 8, "share": 0.2}})
    assert run.matrix["manners"]["02-tact"] == 1.0
    counts = [
        json.loads(line)["examples"]
        for line in (run.path / "stages/02-tact/training.jsonl").read_text().splitlines()
    ]
    assert sum(counts) == 8 * (20 + 5)


def test_a_mean_over_examples_is_one_for_every_kind_of_stage(go: Go, stages: Mapping[str, Any]) -> None:
    """Texts of unlike length have another mean than their tokens; pairs have the same."""
    settings = {**stages, "training.epochs": 1, "training.batch_size": 20, "tasks": stages["tasks"][1:]}
    first: dict[str, list[float]] = {}
    for average in ("token", "example"):
        run = go(average, {**settings, "training.loss_average": average})
        files = [run.path / "stages" / name / "training.jsonl" for name in ("01-reading", "02-manners")]
        first[average] = [json.loads(file.read_text().splitlines()[0])["loss"] for file in files]
    assert first["token"][0] != pytest.approx(first["example"][0], rel=1e-5)
    assert first["token"][1] == pytest.approx(first["example"][1], abs=1e-3)  # of pairs it is log 2 in both


def test_a_loss_that_does_not_weigh_examples_takes_no_mean_over_them(
    go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Own(Method):
        """Half the plain loss."""

        def loss(self, learner: Learner, batch: Sequence[Encoded]) -> torch.Tensor:
            return super().loss(learner, batch) / 2

    monkeypatch.setitem(METHODS, "own", Own)
    with pytest.raises(UserError, match=r"training\.loss_average: method own has a loss of its own"):
        go("run", {"method": "own", "training.loss_average": "example"})
    Own.weighs = True
    go(
        "run",
        {"method": "own", "training.loss_average": "example", "training.limit": 4, "evaluation.limit": 4},
    )
