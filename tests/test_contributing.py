"""CONTRIBUTING's examples, followed as they stand there: a metric, an adapter, a scoring, a benchmark."""

import importlib
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from forgetmenot.cli import main
from forgetmenot.evaluation import scoring
from forgetmenot.metrics import task_metrics
from forgetmenot.models import adapt, settings
from forgetmenot.models.settings import AdapterSettings
from forgetmenot.prompting import parse_choice
from forgetmenot.runs.api import Run
from forgetmenot.runs.export import export
from forgetmenot.studies.compare import compare
from forgetmenot.tasks import known_suites, known_tasks, suites
from tests.conftest import WORDS

Go = Callable[..., Run]
CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"
SMALL = {"evaluation.limit": 8, "training.limit": 16}


def example(section: str) -> str:
    """The Python under a heading of CONTRIBUTING."""
    text = CONTRIBUTING.read_text(encoding="utf-8").split(f"\n## {section}\n")[1].split("\n## ")[0]
    return text.split("```python\n")[1].split("```")[0]


def followed(section: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The names that the example of a section makes, in a file of its own or beside names that are given."""
    names = {"__name__": "copied", **(given or {})}
    exec(compile(example(section), str(CONTRIBUTING), "exec"), names)
    return names


def scored_anew(run: Run, *arguments: str) -> list[list[float | None]]:
    """What `fmn score` makes of a run: the matrix of its only reading beside the run's."""
    with pytest.raises(SystemExit) as ended:
        main(["score", str(run.path), *arguments])
    assert ended.value.code == 0
    (written,) = (run.path / "readings").glob("*.json")
    matrix: list[list[float | None]] = json.loads(written.read_text())["matrix"]
    return matrix


# A metric


def test_a_metric_from_outside_goes_through_task_file_run_report_and_paired_tests(
    go: Go,
    tiny: Mapping[str, Any],
    make_task: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setitem(task_metrics.METRICS, "contains", followed("Add a metric")["CONTAINS"])
    rows = [{"word": f"{label} {k}", "reply": label} for k in range(12) for label in "ae"]
    prompts = {"default": {"template": "Word: {{ word }}\nReply:"}}
    task = make_task("reply", rows, rows[:10], metric="contains", target="reply", prompts=prompts)
    tasks = [str(task), tiny["tasks"][0]]
    runs = [go(f"{epochs}", {"tasks": tasks, "training.epochs": epochs}) for epochs in (1, 8)]
    for run in runs:
        assert run.results["metrics"] == {"reply": "contains", "animal": "accuracy"}
        for stage, scores in enumerate(run.results["matrix"]):
            answers = run.predictions(stage).query("task == 'reply'")
            held = [gold in said for gold, said in zip(answers["gold"], answers["predicted"], strict=True)]
            assert scores[0] == sum(held) / 10
        assert run.results["significance"]["reply"]["test"] == "exact McNemar"
        assert "The share of answers in which the gold text stands somewhere." in run.report().read_text()
    assert runs[0].results["matrix"] != runs[1].results["matrix"]
    comparison = compare([run.path for run in runs], tmp_path / "compared")
    assert [run.unpaired for run in comparison.runs] == [None, None]
    final = {run.summary()["average_performance"] for run in runs}
    assert any(test.values and set(test.values) == final for test in comparison.tests)


# An adapter


@pytest.fixture(params=["a line in the table", "an entry point"])
def bias(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The example's kind of adapter, in this tree or in a package of its own."""
    if request.param == "a line in the table":
        kind = followed("Add an adapter")["BIAS"]
        monkeypatch.setitem(adapt.ADAPTERS, "bias", kind)
        monkeypatch.setitem(settings.KINDS, "bias", kind.uses)
        return
    module = example("Add an adapter")
    folder = tmp_path / "site-packages"
    about = folder / "my_adapters-1.0.dist-info"
    about.mkdir(parents=True)
    (folder / "my_adapters.py").write_text(module)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-adapters\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[forgetmenot.adapters]\nbias = my_adapters:BIAS\n")
    monkeypatch.syspath_prepend(folder)
    importlib.invalidate_caches()


@pytest.mark.usefixtures("bias")
def test_an_adapter_from_outside_runs_resumes_is_scored_anew_and_exported(
    go: Go,
    tiny_llama: Path,
    same: Callable[[Run, Run], None],
    answers_alone: Callable[[Path, Run, int], None],
    tmp_path: Path,
) -> None:
    run = go("one", {**SMALL, "adapter.kind": "bias", "training.learning_rate": 0.1})
    assert run.results["adapter"] == "biases and norms"
    for stage in ("01-animal", "02-colour", "03-size"):
        assert [path.name for path in (run.path / "stages" / stage).iterdir() if path.is_dir()] == ["bias"]
    first, last = (list(map(list, run.predictions(k)["log_likelihoods"])) for k in (0, 3))
    assert first != last

    shutil.copytree(run.path, tmp_path / "two")
    for gone in ("stages/02-colour", "stages/03-size"):
        shutil.rmtree(tmp_path / "two" / gone)
    (tmp_path / "two" / "results.json").unlink()
    resumed = go("two", {**SMALL, "adapter.kind": "bias", "training.learning_rate": 0.1})
    same(resumed, run)

    assert scored_anew(run) == run.results["matrix"]

    export(run.path, "2", tmp_path / "out")
    answers_alone(tmp_path / "out", run, 2)
    before, after = (
        dict(AutoModelForCausalLM.from_pretrained(folder).named_parameters())
        for folder in (tiny_llama, tmp_path / "out")
    )
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed == {name for name, value in before.items() if value.dim() == 1}


@pytest.mark.usefixtures("bias")
def test_an_adapter_from_outside_brings_its_keys_and_its_default_rate(go: Go) -> None:
    with pytest.raises(ValueError, match="rank has no effect with kind: bias"):
        AdapterSettings(kind="bias", rank=4)
    run = go("one", {**SMALL, "adapter.kind": "bias", "checkpoints": "none"})
    identity = json.loads((run.path / "environment.json").read_text())["identity"]
    assert identity["learning_rate"] == 1e-3
    assert not list(run.path.rglob("*bias.safetensors"))


# A way of scoring


def test_a_way_of_scoring_from_outside_reads_a_run_and_saved_stages(
    go: Go, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_first_word = followed("Add a way of scoring", vars(scoring))["by_first_word"]
    monkeypatch.setitem(scoring.SCORINGS, "first-word", scoring.Scoring(by_first_word, generates=True))
    settings = {"training.epochs": 6, "evaluation.limit": 8}
    run = go("one", {**settings, "evaluation.scoring": "first-word"})
    (reading,) = run.results["readings"]
    assert reading["scoring"] == "first-word"
    answers = [row for stage in range(4) for row in run.predictions(stage).to_dict("records")]
    read = [row["predicted"] if isinstance(row["predicted"], str) else None for row in answers]
    firsts = [(row["generated"].split() or [""])[0] for row in answers]
    words = [{label: label for label in WORDS[row["task"]]} for row in answers]
    assert read == [parse_choice(*pair) for pair in zip(firsts, words, strict=True)]
    assert any(read)
    assert any(row["generated"] != first for row, first in zip(answers, firsts, strict=True))

    plain = go("two", settings)
    assert scored_anew(plain, "--reading", "scoring=first-word") == run.results["matrix"]


# A public benchmark


def test_a_benchmark_from_outside_is_listed_and_its_suite_runs(
    go: Go, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(suites.SOURCES, "words", followed("Add a public benchmark")["SOURCE"])
    folder = tmp_path / "data" / "word-kinds"
    folder.mkdir(parents=True)
    for split, count in (("train", 24), ("score", 10)):
        rows = [{"word": f"{split} {k}", "kind": ("concrete", "abstract")[k % 2]} for k in range(count)]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert known_tasks()["word-kinds"] == "Is a word concrete or abstract?"
    assert known_suites()["words"] == ("word-kinds",)
    run = go("one", {"tasks": "words", "data_dir": str(tmp_path / "data")})
    assert run.results["tasks"] == ["word-kinds"]
    assert run.results["readings"][0]["n"] == {"word-kinds": 10}
