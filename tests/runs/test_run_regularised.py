"""Runs with methods that hold weights or answers in place: what strength 0 is, what resuming finds."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

from forgetmenot.errors import UserError
from forgetmenot.runs.api import Run
from forgetmenot.runs.display import Display
from tests.written import FEW_WORDS

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]

SMALL = {"evaluation.limit": 8, "training.limit": 16, "training.batch_size": 4}
STRONG: dict[str, dict[str, Any]] = {
    "ewc": {"name": "ewc", "strength": 1e4, "examples": 6},
    "kl": {"name": "kl", "strength": 5.0},
    "l2-sp": {"name": "l2-sp", "strength": 1.0, "anchor": "base"},
    "lwf": {"name": "lwf", "strength": 5.0},
    "self-distillation": {"name": "self-distillation", **FEW_WORDS},
    "si": {"name": "si", "strength": 1e4},
}


def _answers(run: Run, stage: int) -> list[Any]:
    answers: list[Any] = run.predictions(stage)["log_likelihoods"].map(list).tolist()
    return answers


@pytest.fixture(scope="module")
def sequential(tiny: Mapping[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Run]:
    """Plain runs by kind of adapter."""
    import forgetmenot.runs

    folder = tmp_path_factory.mktemp("sequential")
    return {
        kind: forgetmenot.run({**tiny, **SMALL, "adapter.kind": kind, "output": str(folder / kind)})
        for kind in ("lora", "full")
    }


@pytest.mark.parametrize("name", ["ewc", "kl", "l2-sp", "lwf", "si"])
def test_without_strength_it_is_sequential_to_the_last_bit(
    name: str, go: Go, sequential: dict[str, Run]
) -> None:
    kind = "full" if name in ("ewc", "lwf") else "lora"
    run = go(name, {**SMALL, "method": {"name": name, "strength": 0}, "adapter.kind": kind})
    plain = sequential[kind]
    for stage in range(4):
        assert _answers(run, stage) == _answers(plain, stage)
    for stage_name in ("01-animal", "02-colour", "03-size"):
        files = [one.path / "stages" / stage_name / "cost.json" for one in (run, plain)]
        assert json.loads(files[0].read_text()) == json.loads(files[1].read_text())


@pytest.mark.parametrize("name", STRONG)
def test_what_is_remembered_is_found_again(
    name: str, go: Go, sequential: dict[str, Run], same: Same, tiny: Mapping[str, Any]
) -> None:
    """Stopped after two stages and gone on from their files, against undisturbed."""
    settings = {**SMALL, "method": STRONG[name]}
    undisturbed = go("undisturbed", settings)
    go("grown", {**settings, "tasks": tiny["tasks"][:2]})
    same(undisturbed, go("grown", settings))
    assert _answers(undisturbed, 3) != _answers(sequential["lora"], 3)


def test_what_takes_long_is_shown(go: Go, tiny: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The Fisher information, one example at a time."""
    bars: dict[str, list[int]] = {}

    @contextmanager
    def progress(_: Display, description: str, total: int) -> Iterator[Callable[..., None]]:
        bars[description] = [total]
        yield lambda count, *_: bars[description].append(count)

    monkeypatch.setattr(Display, "progress", progress)
    go("one", {**SMALL, "method": STRONG["ewc"], "tasks": tiny["tasks"][:1]})
    assert bars["Fisher information"] == [6, *[1] * 6]


@pytest.mark.parametrize("method", ["ewc", "si", {"name": "l2-sp", "anchor": "base"}, "kl"])
def test_an_adapter_that_begins_anew_is_refused_before_anything_is_loaded(method: Any, go: Go) -> None:
    with pytest.raises(UserError, match=r"adapter\.per_stage: merge"):
        go("one", {"method": method, "adapter.per_stage": "merge", "model": "not-there"})


@pytest.mark.parametrize(("method", "per_stage"), [("lwf", "merge"), ("kl", "new")])
def test_methods_that_compare_with_the_stages_start_take_new_adapters(
    method: str, per_stage: str, go: Go, sequential: dict[str, Run]
) -> None:
    run = go("one", {**SMALL, "method": STRONG[method], "adapter.per_stage": per_stage})
    assert _answers(run, 3) != _answers(sequential["lora"], 3)
