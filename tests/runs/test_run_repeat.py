"""Two runs of one config and seed are equal to the last bit; another seed differs."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from forgetmenot.errors import UserError
from forgetmenot.runs.api import Run

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]


def test_one_seed_gives_one_result(finished: Run, go: Go, same: Same) -> None:
    torch.manual_seed(99)  # the state of the global generator is nobody's input
    same(finished, go("again"))


def test_another_seed_gives_another(finished: Run, go: Go) -> None:
    other = go("other", {"seed": 1})
    assert _likelihoods(other, 0) == _likelihoods(finished, 0)
    assert _likelihoods(other, 1) != _likelihoods(finished, 1)


@pytest.mark.parametrize(
    "settings",
    [
        {"adapter.kind": "full"},
        {"adapter.dropout": 0.2},
        {"adapter.per_stage": "new"},
        {"adapter.per_stage": "merge"},
    ],
    ids=lambda settings: "-".join(map(str, settings.values())),
)
def test_other_ways_to_adapt_repeat_as_well(go: Go, same: Same, settings: dict[str, Any]) -> None:
    one = go("one", settings)
    same(one, go("other", settings))
    whole = settings in ({"adapter.kind": "full"}, {"adapter.per_stage": "merge"})
    stage = one.path / "stages" / "01-animal"
    assert (stage / "model").is_dir() == whole
    assert (stage / "adapter").is_dir() != whole


def test_full_fine_tuning_moves_every_matrix(go: Go, tiny_llama: Path) -> None:
    run = go("full", {"adapter.kind": "full"})
    before = load_file(tiny_llama / "model.safetensors")
    after = load_file(run.path / "stages/03-size/model/model.safetensors")
    assert before.keys() == after.keys()
    assert all(not torch.equal(before[name], after[name]) for name in before)


def test_dropout_draws_and_shares_nothing(go: Go, finished: Run) -> None:
    run = go("dropout", {"adapter.dropout": 0.2})
    cost = run.results["cost"]["positions"]["01-animal"]["training"]
    assert cost["computed"] == cost["without_sharing"]
    assert _likelihoods(run, 1) != _likelihoods(finished, 1)


def test_a_limit_takes_the_same_examples_for_every_seed(go: Go) -> None:
    limits = {"evaluation.limit": 7, "training.limit": 12}
    runs = [go(f"seed-{seed}", {**limits, "seed": seed}) for seed in (0, 1)]
    one, other = ([run.predictions(stage)["example"].tolist() for stage in range(4)] for run in runs)
    assert one == other
    assert len(one[0]) == 3 * 7
    assert len(set(map(tuple, one))) == 1
    assert set(one[0][:7]) != {f"score-{k}" for k in range(7)}  # drawn, not the first
    for run in runs:
        lines = (run.path / "stages/01-animal/training.jsonl").read_text().splitlines()
        assert len(lines) == 2  # 12 examples in batches of 8


def test_limits_and_epochs_may_differ_by_task(go: Go, finished: Run) -> None:
    run = go("maps", {"training.limit": {"animal": 0, "size": 9}, "training.epochs": {"colour": 2}})
    steps = [
        len((run.path / "stages" / name / "training.jsonl").read_text().splitlines())
        for name in ("01-animal", "02-colour", "03-size")
    ]
    assert steps == [0, 10, 2]
    assert _likelihoods(run, 1) == _likelihoods(finished, 0)  # nothing was learned


def test_a_map_names_tasks_of_the_run(go: Go) -> None:
    with pytest.raises(UserError, match=r"training\.limit: this run has no task 'colours'.*'colour'"):
        go("wrong", {"training.limit": {"colours": 3}})


def _likelihoods(run: Run, stage: int) -> list[list[float]]:
    values: list[list[float]] = run.predictions(stage)["log_likelihoods"].map(list).tolist()
    return values
