"""Finished runs and studies side by side: what varies among them, what is written, and what is refused."""

import io
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

import forgetmenot
from forgetmenot.errors import UserError
from forgetmenot.runs.api import Run
from forgetmenot.studies.compare import compare
from tests.report.compared_runs import forgetful, identity_gap, write_answers

Go = Callable[..., Run]
SMALL = {"evaluation.limit": 8, "training.limit": 16}


@pytest.fixture
def two(go: Go, tiny: Mapping[str, Any]) -> list[Path]:
    """Two real runs of the tiny model: two tasks in either order, of other seeds."""
    tasks = list(tiny["tasks"][:2])
    orders = (("there", tasks, 0), ("back", tasks[::-1], 1))
    return [go(name, {**SMALL, "tasks": order, "seed": seed}).path for name, order, seed in orders]


def test_real_runs_are_told_by_what_their_configs_differ_in(two: list[Path], tmp_path: Path) -> None:
    comparison = compare(two, tmp_path / "out")
    assert comparison.keys == ["order", "seed"]
    assert [run.unpaired for run in comparison.runs] == [None, None]
    for run in comparison.runs:
        assert run.results is not None
        assert identity_gap(run.results.summary) == pytest.approx(0.0, abs=1e-12)
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert written == [
        "compare-runs.csv", "compare-tests.csv", "compare.csv", "compare.html", "compare.tex",
    ]  # fmt: skip
    runs = pd.read_csv(tmp_path / "out" / "compare-runs.csv")
    assert list(runs["seed"]) == [0, 1]
    for path, mean in zip(two, runs["haque_final_mean"], strict=True):
        assert mean == pytest.approx(Run(path).summary()["haque"]["final_mean"])


def test_the_same_config_twice_is_told_by_the_directories(two: list[Path], tmp_path: Path) -> None:
    again = Path(shutil.copytree(two[0], tmp_path / "again"))
    comparison = compare([two[0], again], tmp_path / "out")
    assert comparison.keys == ["run"]
    assert [test.contrast.difference for test in comparison.tests if test.contrast] == [0.0, 0.0]
    assert [test.contrast.p for test in comparison.tests if test.contrast] == [1.0, 1.0]


def _written(folder: Path, name: str, config: str, **answers: Any) -> Path:
    path = write_answers(folder / name, forgetful(len(name)), model=name, **answers)
    (path / "config.yaml").write_text(config, encoding="utf-8")
    return path


def test_models_methods_and_other_keys_make_groups(tmp_path: Path) -> None:
    paths = [
        _written(tmp_path, "one", "{model: one, method: {name: ewc, strength: 2.0}, training: {epochs: 1}}"),
        _written(tmp_path, "two", "{model: two, method: sequential, training: {epochs: 3}}"),
    ]
    comparison = compare(paths, tmp_path)
    assert comparison.kind == "setting"
    assert [one.name for one in comparison.groups] == [
        "one, ewc (strength 2.0)",
        "two, sequential",
    ]
    assert [one.details for one in comparison.groups] == ["training.epochs 1", "training.epochs 3"]


def test_a_study_stands_for_its_runs_and_a_directory_for_itself(tmp_path: Path) -> None:
    (tmp_path / "study" / "runs").mkdir(parents=True)
    _written(tmp_path / "study" / "runs", "one", "{model: one}")
    (tmp_path / "study" / "runs" / "two.yaml").write_text("{model: two}", encoding="utf-8")
    runs = [{"run": "one", "failed": None}, {"run": "two", "failed": "Model 'two' is gated."}]
    (tmp_path / "study" / "study.json").write_text(json.dumps({"runs": runs}))
    three = _written(tmp_path, "three", "{model: three}")
    comparison = compare([tmp_path / "study", three, three], tmp_path)
    assert [one.name for one in comparison.groups] == ["one", "two", "three"]
    assert list(comparison.failures) == ["Model 'two' is gated."]


def test_what_is_no_run_and_one_run_alone_are_refused(tmp_path: Path) -> None:
    one = _written(tmp_path, "one", "{model: one}")
    (tmp_path / "here").mkdir()
    with pytest.raises(
        UserError, match=r"all 2 paths are of the same run, .*one; give at least two different"
    ):
        compare([one, tmp_path / "here" / ".." / "one"], tmp_path)
    with pytest.raises(UserError, match=r"one is one run; give at least two different runs"):
        compare([one], tmp_path)
    assert not (tmp_path / "compare.html").exists()
    with pytest.raises(UserError, match=r"nothing is neither a finished run nor a study"):
        compare([one, tmp_path / "nothing"], tmp_path)


def test_the_terminal_has_the_sentences_and_the_table(tmp_path: Path) -> None:
    paths = [_written(tmp_path, name, f"{{model: {name}}}") for name in ("one", "three")]
    screen = io.StringIO()
    compared = forgetmenot.compare([str(path) for path in paths], str(tmp_path))
    compared.print(Console(file=screen, width=140))
    assert compared.report() == tmp_path / "compare.html"
    assert compared.report().is_file()
    said = " ".join(screen.getvalue().split())
    assert " loses least: 0." in said
    assert (
        "model runs average performance backward transfer forward transfer forgetting (Chaudhry) learning"
        in said
    )
