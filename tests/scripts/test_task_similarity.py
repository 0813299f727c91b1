"""Similarity of tasks against forgetting: drops by hand, and a whole run."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from forgetmenot.errors import UserError
from scripts.task_similarity import bootstrap, drops_of, main, mean_vectors


def test_a_drop_is_that_of_the_stage_and_averaged_over_runs() -> None:
    stages = [{"trains_on": []}, {"trains_on": ["a"]}, {"trains_on": ["b"]}, {"trains_on": ["c"]}]
    one = {
        "tasks": ["a", "b", "c"],
        "stages": stages,
        "matrix": [[0.1, 0.2, 0.3], [0.9, 0.2, 0.3], [0.7, 0.8, 0.3], [0.6, 0.8, None]],
    }
    other = {**one, "matrix": [[0.1, 0.2, 0.3], [0.9, 0.2, 0.3], [0.5, 0.8, 0.3], [0.6, None, 0.5]]}
    assert drops_of([one]) == pytest.approx({("a", "b"): 0.2, ("a", "c"): 0.1, ("b", "c"): 0.0})
    assert drops_of([one, other]) == pytest.approx({("a", "b"): 0.3, ("a", "c"): 0.0, ("b", "c"): 0.0})


def test_the_interval_is_narrow_where_all_pairs_say_the_same() -> None:
    x = np.arange(12.0)
    assert bootstrap(x, -x) == pytest.approx((-1, -1))
    assert bootstrap(x, np.zeros(12)) is None
    found = bootstrap(x, np.random.default_rng(0).normal(size=12))
    assert found is not None
    assert found[0] < 0 < found[1]


def test_a_run_with_too_few_tasks_is_refused(furnished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["x", "out.json", str(furnished / "done")])
    with pytest.raises(UserError, match="1 pairs of tasks; 5 or more"):
        main()


def test_runs_are_read_and_their_tasks_embedded(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("scripts.task_similarity.FEWEST", 1)
    monkeypatch.setattr(sys, "argv", ["x", "out.json", "done"])
    main()
    found = json.loads(Path("out.json").read_text())
    (pair,) = found["pairs"]
    assert (pair["forgotten"], pair["learned"], found["n"]) == ("animal", "colour", 1)
    assert 0.5 < pair["similarity"] <= 1
    assert "colour after animal" in capsys.readouterr().out


def test_runs_of_other_tasks_join_and_those_of_another_model_are_refused(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = yaml.safe_load(Path("done/config.yaml").read_text())
    for name, changes in (("more", {"tasks": config["tasks"][:1]}), ("other", {"model": {"name": "gpt2"}})):
        (tmp_path / name).mkdir()
        changed = {**config, **changes, "output": str(tmp_path / name)}
        (tmp_path / name / "config.yaml").write_text(yaml.safe_dump(changed))
    means = mean_vectors([tmp_path / "more", Path("done")], ["animal", "colour"], 8)
    assert sorted(means) == ["animal", "colour"]
    with pytest.raises(UserError, match=r"several models \(gpt2\)"):
        mean_vectors([Path("done"), tmp_path / "other"], ["animal"], 8)
