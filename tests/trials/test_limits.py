"""Tuned models against examples in context: end to end on a tiny model, and each promise by itself."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import forgetmenot
from forgetmenot.cli import main
from forgetmenot.errors import UserError
from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.record.files import read_lines
from forgetmenot.record.layout import BASE, PREDICTIONS, stage_folder
from forgetmenot.record.predictions import read_predictions
from forgetmenot.runs.directory import begun_with
from forgetmenot.tasks import load_tasks
from forgetmenot.trials import limits_trial
from forgetmenot.trials.limits import Limits, limits
from forgetmenot.trials.limits_settings import limits_settings
from forgetmenot.trials.limits_tasks import Case, in_context_texts, make_cases, mixture, unlike

SMALL = {"tests": 8, "rows": 48, "training.batch_size": 8}
NAMES = ["animal", "colour", "size"]
CONTROLS = ["unified", "corrupted", "unanswered", "irrelevant", "verbose"]


@pytest.fixture(scope="session")
def roomy(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The tiny model with positions enough for examples in context."""
    folder = tmp_path_factory.mktemp("roomy") / "tiny-llama"
    shutil.copytree(tiny_llama, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 1024}))
    return str(folder)


@pytest.fixture(scope="session")
def paths(tiny_tasks: Mapping[str, Path]) -> list[str]:
    return [str(tiny_tasks[name]) for name in NAMES]


@pytest.fixture(scope="session")
def done(roomy: str, paths: list[str], tmp_path_factory: pytest.TempPathFactory) -> Limits:
    """All conditions, with one task held out; for reading only."""
    output = tmp_path_factory.mktemp("limits") / "done"
    return limits(roomy, paths, output, hold_out=["size"], settings=SMALL)


@pytest.fixture
def cases(paths: list[str]) -> list[Case]:
    settings, _ = limits_settings(SMALL)
    return make_cases(load_tasks(paths, None), ["size"], settings, 0)


def test_all_conditions_are_asked_of_the_same_tests(done: Limits, cases: list[Case]) -> None:
    model = done.found["models"][0]
    conditions = ["base", "gold", "direct", "samplegen", "pipeline", *CONTROLS]
    assert list(model["scores"]) == NAMES
    assert all(list(of_task) == conditions for of_task in model["scores"].values())
    for condition in ("gold", "samplegen", "pipeline", *CONTROLS):
        answers = read_predictions(done.path / "models/tiny-llama" / condition / PREDICTIONS)
        for case in cases:
            assert answers[case.name].ids == [one.id for one in case.tests]
            assert answers[case.name].gold == [one.label for one in case.tests]


def test_base_and_tuned_are_the_stages_of_one_run(done: Limits) -> None:
    run = done.path / "models/tiny-llama/run-direct"
    model = done.found["models"][0]
    for condition, stage in (("base", BASE), ("direct", "01-joint")):
        answers = read_predictions(stage_folder(run, stage) / PREDICTIONS)
        for task in NAMES:
            found = answers[f"{task}-direct"]
            right = np.mean([gold == said for gold, said in zip(found.gold, found.predicted, strict=True)])
            figures = model["scores"][task][condition]
            assert figures["accuracy"] == pytest.approx(right)
            assert found.leads is not None
            assert figures["margin"] == pytest.approx(found.leads.mean())
    assert model["scores"]["animal"]["direct"] != model["scores"]["animal"]["base"]


def test_the_margin_is_gold_minus_the_best_other(done: Limits) -> None:
    answers = read_predictions(done.path / "models/tiny-llama/gold" / PREDICTIONS)["size"]
    labels = answers.labels
    assert labels is not None
    by_hand = []
    for gold, row in zip(answers.gold, answers.log_likelihoods, strict=True):
        assert row is not None
        others = [value for label, value in zip(labels, row, strict=True) if label != gold]
        by_hand.append(row[labels.index(gold)] - max(others))
    assert done.found["models"][0]["scores"]["size"]["gold"]["margin"] == pytest.approx(np.mean(by_hand))


def test_gold_examples_score_as_one_sequence_at_a_time(done: Limits, cases: list[Case], roomy: str) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(roomy), AutoTokenizer.from_pretrained(roomy)
    case = cases[0]
    answers = read_predictions(done.path / "models/tiny-llama/gold" / PREDICTIONS)["animal"]
    for k, example in enumerate(case.tests[:3]):
        prompt = tokenizer.encode(case.with_gold(example))
        row = answers.log_likelihoods[k]
        assert row is not None
        for label, value in zip(case.task.labels, row, strict=True):
            tokens = torch.tensor([tokenizer.encode(f"{case.with_gold(example)} {label}")])
            with torch.no_grad():
                said = model(tokens).logits[0].float().log_softmax(-1)
            picked = [said[i - 1, tokens[0, i]] for i in range(len(prompt), tokens.shape[1])]
            assert value == pytest.approx(float(sum(picked)), abs=1e-4)


def test_correlations_are_those_of_the_scores(done: Limits) -> None:
    [model] = done.found["models"]
    for one in done.found["correlations"]:
        assert one["over"] == "all" or one["n"] == 1  # one task is held out
        if one["over"] == "held out" or one["value"] is None:
            continue
        x, y = (
            [of_task[condition][one["measure"]] for of_task in model["scores"].values()]
            for condition in (one["of"], one["with"])
        )
        compute = stats.spearmanr if one["coefficient"] == "spearman" else stats.pearsonr
        assert one["value"] == pytest.approx(compute(x, y).statistic)
        assert one["interval"] is None  # three tasks
    pairs = {(one["of"], one["with"]) for one in done.found["correlations"]}
    assert pairs == {
        *(("direct", name) for name in ("base", "gold", "pipeline", *CONTROLS)),
        *(("samplegen", name) for name in ("pipeline", "gold")),
    }


def test_differences_are_tuned_minus_in_context(done: Limits) -> None:
    [model] = done.found["models"]
    for task, one in model["differences"].items():
        scores = model["scores"][task]
        assert one["difference"] == pytest.approx(scores["direct"]["accuracy"] - scores["gold"]["accuracy"])
        low, high = one["interval"]
        assert low <= one["difference"] <= high
        assert one["p_holm"] >= one["p"]


def test_a_held_out_task_is_tested_and_not_learned(done: Limits) -> None:
    about = done.found["tasks"]
    assert {name: one["trained"] for name, one in about.items()} == {
        "animal": True,
        "colour": True,
        "size": False,
    }
    assert [one["rows"] for one in about.values()] == [24, 24, 0]
    assert len(read_lines(done.path / "tasks/direct/animal-train.jsonl")) == 24
    assert not list((done.path / "tasks").glob("*/size-train.jsonl"))
    assert "held out" in (done.path / "limits.md").read_text()


def test_a_samplegen_model_learns_the_format(done: Limits, cases: list[Case]) -> None:
    rows: list[Any] = read_lines(done.path / "tasks/samplegen/animal-train.jsonl")
    for row in rows:
        assert row["text"].endswith("Write solved examples of this task, and then its solution.")
        question = row["text"].split("\n")[0].removeprefix("Word: ")
        assert row["target"].startswith("Example 1:\nWord 1: ")
        assert (
            f"\n\nSolution:\nWord Solution: {question}\nOptions Solution: cat, dog\nAnswer Solution: "
            in row["target"]
        )
        assert row["target"].endswith("\nEND_EXAMPLES")
        assert row["target"].count(f": {question}\n") == 1  # the asked example is none of those shown
        assert row["target"].count("\nExample 2:") == 1
        assert "Example 3:" not in row["target"]


def test_the_pipeline_gives_the_base_what_the_samplegen_model_wrote(done: Limits, cases: list[Case]) -> None:
    folder = done.path / "models/tiny-llama"
    written: list[Any] = read_lines(folder / "written/animal.jsonl")
    assert [one["example"] for one in written] == [one.id for one in cases[0].tests]
    shown = read_predictions(folder / "pipeline" / PREDICTIONS)["animal"].prompt_text
    tuned = read_predictions(folder / "samplegen" / PREDICTIONS)["animal"].prompt_text
    for one, text, own in zip(written, shown, tuned, strict=True):
        assert text is not None
        assert own is not None
        assert f"text: {one['text'].strip()}\nAnswer Solution:" in text
        assert "Write solved examples" not in text
        assert "Write solved examples of this task, and then its solution." in own
    about = done.found["models"][0]["written"]["animal"]
    assert about == {"n": 8, "ended": sum(one["ended"] for one in written)}


def test_every_condition_sees_the_same_letters(paths: list[str]) -> None:
    settings, _ = limits_settings({**SMALL, "letters": 5})
    case = make_cases(load_tasks(paths, None), [], settings, 0)[0]
    texts = [case.tests[k].fields["word"] for k in range(8)]
    assert all(len(text) <= 5 for text in texts)
    for text, example in zip(texts, case.tests, strict=True):
        assert case.asked(example) == f"Word: {text}\nKind:"
        assert f"Word Solution: {text}\n" in case.with_gold(example)


def test_examples_are_of_the_train_split_and_never_the_asked_one(cases: list[Case]) -> None:
    for case in cases:
        learned = {one.fields["word"] for one in case.task.train}
        for example in [*case.tests, *case.task.train[:8]]:
            shown = [one.fields["word"] for one in case.shown.before(example)]
            assert len(shown) == 2
            assert {*shown} <= learned
            assert example.fields["word"] not in shown


def test_irrelevant_examples_are_those_of_a_task_with_other_answers(cases: list[Case]) -> None:
    texts = {case.name: said for case, said in in_context_texts(cases, "irrelevant")}
    assert all("Options 1: blue, red\n" in one for one in texts["animal"])
    assert all("Options Solution: cat, dog\n" in one for one in texts["animal"])
    assert all("Options 1: cat, dog\n" in one for one in texts["size"])
    twin = Case(cases[0].task, cases[0].prompts, cases[0].written, True, cases[0].shown)
    assert unlike(cases[0], [twin, cases[2]]) is cases[2]
    assert unlike(cases[0], [twin]) is twin


def test_the_mixture_is_proportional_up_to_the_cap() -> None:
    assert mixture([6000, 3000, 1500], 750, 3000) == [300, 300, 150]
    assert mixture([6000, 3000, 1500], 10, 3000) == [4, 4, 2]
    assert mixture([10, 20], 100, 15) == [10, 15]  # no more than there are
    assert mixture([5, 5, 5], 10, 3000) == [4, 3, 3]
    assert sum(mixture([7, 11, 13, 400], 97, 100)) == 97


@pytest.mark.parametrize(
    ("given", "meant"), [("false", False), ("False", False), (False, False), ("true", True)]
)
def test_a_truth_value_that_is_given_as_text_is_what_it_says(given: Any, meant: bool) -> None:
    """The official code's `type=bool` made "False" true, and its strings stayed true in an `if`."""
    settings, _ = limits_settings({"samplegen": given, "balanced": given})
    assert settings.samplegen is meant
    assert settings.balanced is meant


def test_text_that_is_no_truth_value_is_refused() -> None:
    with pytest.raises(UserError, match="samplegen"):
        limits_settings({"samplegen": "perhaps"})


def test_each_control_is_asked_as_itself(cases: list[Case]) -> None:
    """The official code's set-ups each overwrote the last, so that one was run under every name."""
    texts = {name: next(in_context_texts(cases, name))[1][0] for name in CONTROLS}
    texts["gold"] = next(in_context_texts(cases))[1][0]
    assert len({*texts.values()}) == 6


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_base_and_tuned_are_computed_alike(
    roomy: str, paths: list[str], tmp_path: Path, precision: str
) -> None:
    """The official code served tuned models in four bits, and base models in sixteen."""
    precise = {"training.precision": precision, "model.dtype": precision}
    settings = {"tests": 2, "rows": 8, "controls": [], **precise}
    found = limits(roomy, paths[:2], tmp_path / "out", settings=settings)
    [model] = found.found["models"]
    assert model["precision"] == precision
    assert model["dtype"] == {"fp32": "float32", "bf16": "bfloat16"}[precision]
    for kind in ("direct", "samplegen"):
        path = found.path / "models/tiny-llama" / f"run-{kind}" / "environment.json"
        assert json.loads(path.read_text())["identity"]["precision"] == precision


def test_models_that_were_computed_otherwise_are_refused(
    done: Limits, roomy: str, paths: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def four_bits(directory: Any) -> dict[str, Any]:
        other = {"quantization": "nf4"} if directory.path.name == "run-samplegen" else {}
        return {**begun_with(directory), **other}

    monkeypatch.setattr(limits_trial, "begun_with", four_bits)
    with pytest.raises(UserError, match="run-samplegen: its quantization is nf4, and that of the base None"):
        limits(roomy, paths, done.path, hold_out=["size"], settings=SMALL)


def test_prompts_that_are_too_long_lose_their_beginning_and_are_counted(
    roomy: str, paths: list[str], tmp_path: Path, cases: list[Case]
) -> None:
    settings = {"tests": 4, "rows": 8, "samplegen": False, "controls": [], "training.max_length": 60}
    found = limits(roomy, paths[:2], tmp_path / "out", settings=settings)
    cut = found.found["models"][0]["truncated"]["gold"]
    assert cut["animal"]["examples"] == 4
    assert (
        "prompts too long for the model lost their beginning, 4 of animal"
        in (tmp_path / "out/limits.md").read_text()
    )


def test_a_killed_trial_goes_on_and_ends_the_same(
    done: Limits, roomy: str, paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def dies(learner: Any, method: Any, scored: Any, advance: Any) -> Any:
        if len(asked) == 4:  # samplegen is whole, and gold is not
            raise KeyboardInterrupt
        asked.append(scored.task.name)
        return evaluate(learner, method, scored, advance)

    def call() -> Limits:
        return limits(roomy, paths, tmp_path / "out", hold_out=["size"], settings=SMALL)

    with monkeypatch.context() as patch:
        patch.setattr(limits_trial, "evaluate", dies)
        with pytest.raises(KeyboardInterrupt):
            call()
    folder = tmp_path / "out/models/tiny-llama"
    assert (folder / "samplegen").is_dir()
    assert not (folder / "gold").exists()
    again: list[str] = []

    def counts(learner: Any, method: Any, scored: Any, advance: Any) -> Any:
        again.append(scored.task.name)
        return evaluate(learner, method, scored, advance)

    monkeypatch.setattr(limits_trial, "evaluate", counts)
    monkeypatch.setattr(limits_trial, "write_text", pytest.fail)  # nothing is written by the model again
    call()
    assert again == NAMES * 7  # all but samplegen: gold, the pipeline and five controls
    again.clear()
    call()
    assert again == []
    for name in ("limits.json", "limits.md"):
        first = (done.path / name).read_text().replace(str(done.path), "")
        assert (tmp_path / "out" / name).read_text().replace(str(tmp_path / "out"), "") == first


def test_another_model_joins_those_that_are_there(
    roomy: str, paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other" / "tiny-llama"  # the last part of its name is the first one's
    shutil.copytree(roomy, other)
    settings = {**SMALL, "samplegen": False, "controls": []}
    first = limits(roomy, paths, tmp_path / "out", settings=settings)
    joined = limits(str(other), paths, tmp_path / "out", settings=settings)  # by itself, in a call of its own
    both = limits([roomy, str(other)], paths, tmp_path / "out", settings=settings)
    assert joined.found == both.found
    assert [one["model"] for one in both.found["models"]] == [roomy, str(other)]
    assert both.found["models"][0]["scores"] == first.found["models"][0]["scores"]
    assert both.found["models"][1]["scores"] == first.found["models"][0]["scores"]  # the same weights
    assert {one["model"] for one in both.correlations.to_dict("records")} == {
        roomy,
        str(other),
        "mean of the models",
    }
    assert len(both.table) == 2 * 3 * 3
    with pytest.raises(UserError, match="answers of other settings"):
        limits(roomy, paths, tmp_path / "out", settings={**settings, "tests": 4})
    with pytest.raises(UserError, match="answers of other hold_out"):
        limits(roomy, paths, tmp_path / "out", hold_out=["size"], settings=settings)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"hold_out": ["cat"]}, "'cat' is none of the tasks"),
    ({"hold_out": NAMES}, "names every task"),
    ({"settings": {"controls": ["corupted"]}}, "no control 'corupted'.*corrupted"),
    ({"settings": {"test": 4}}, "test"),
    ({"settings": {"model.name": "gpt2"}}, "name the models before"),
    ({"settings": {"evaluation.limit": 4}}, "evaluation.limit"),
    ({"models": ["quickstart", "quickstart"]}, "named twice"),
    ({"models": []}, "models: name one or more"),
    ({"settings": {"examples": 1001}}, "examples: input should be less than or equal to 1000"),
    ({"settings": {"rows": 2}}, r"rows: of 2 rows in all none are of .*; raise it, or hold these out"),
]


@pytest.mark.parametrize(("given", "sentence"), WRONG)
def test_what_does_not_fit_is_said(
    roomy: str, paths: list[str], tmp_path: Path, given: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        limits(**{"models": roomy, "tasks": paths, "output": tmp_path / "out", **given})
    assert not (tmp_path / "out").exists()


def test_a_task_that_is_held_out_twice_is_held_out_once(paths: list[str]) -> None:
    tasks = load_tasks(paths, None)
    found = make_cases(tasks, [tasks[0].name] * len(tasks), limits_settings({})[0], 0)
    assert [one.trained for one in found] == [False, *[True] * (len(tasks) - 1)]


def test_a_task_without_labels_is_refused(
    roomy: str, paths: list[str], make_task: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [{"q": f"{k}", "a": "x"} for k in range(4)]
    prompts = {"default": {"template": "{{ q }}"}}
    free = make_task("free", rows, rows, target="a", prompts=prompts)
    with pytest.raises(UserError, match="'free' does not choose among labels"):
        limits(roomy, [paths[0], str(free)], tmp_path / "out")


def test_one_task_has_no_other_to_show(roomy: str, paths: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is only one"):
        limits(roomy, paths[:1], tmp_path / "out")


def test_the_command_runs_the_bundled_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = ["tests=6", "rows=16", "letters=60", "samplegen=false", "controls=[]"]
    arguments = [part for one in settings for part in ("--set", one)]
    with pytest.raises(SystemExit) as ended:
        main(["limits", "quickstart-small", "--tasks", "quickstart", *arguments])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "Correlation over tasks" in printed
    assert "even the paper's Spearman correlation" in " ".join(printed.split())
    [folder] = (tmp_path / "limits").iterdir()
    found = json.loads((folder / "limits.json").read_text())
    assert len(found["tasks"]) == 4
    # anchored: what four tasks would say of the paper's .851
    assert found["paper_interval"] == pytest.approx([-0.773, 0.998], abs=0.001)


def test_python_offers_it() -> None:
    assert forgetmenot.limits is limits
    assert forgetmenot.Limits is Limits
