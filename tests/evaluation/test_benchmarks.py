"""lm-eval's tasks as columns, against lm-eval by itself: every answer is right where it says so."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.evaluation import watched
from forgetmenot.evaluation.benchmark import Benchmark
from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.evaluation.readings import scored_task
from forgetmenot.evaluation.scored_task import ScoredTask
from forgetmenot.evaluation.settings import Asking, EvaluationSettings
from forgetmenot.evaluation.watched import check_benchmarks, divided, load_benchmarks
from forgetmenot.methods import Method
from forgetmenot.metrics import measure
from forgetmenot.probes import make_probe
from forgetmenot.probes.shared.lm_eval_tasks import unmentioned
from forgetmenot.record.predictions import Predictions
from forgetmenot.tasks import sample
from tests.probes.conftest import load

pytest.importorskip("lm_eval")

Make = Callable[..., Path]

SHARED = Path(__file__).resolve().parents[2].parent / "shared"
WORDS = ("cat", "dog", "a tabby cat", "red", "two words", "über", "ship", "x")


def rows(count: int, choices: int = 0) -> list[dict[str, Any]]:
    """Questions with `choices` words each, or with 2 to 4 of them."""
    found = []
    for k in range(count):
        words = [WORDS[(k + j) % len(WORDS)] for j in range(choices or 2 + k % 3)]
        found.append({"q": f"word {k}", "words": words, "right": k % len(words), "text": WORDS[k % 5]})
    return found


CHOICES = {"doc_to_text": "{{q}}:", "doc_to_choice": "words", "doc_to_target": "right"}
NAMED = {**CHOICES, "doc_to_choice": ["cat", "dog"], "doc_to_target": "{{ right % 2 }}"}
MEAN = {"aggregation": "mean", "higher_is_better": True}
WRITTEN: dict[str, Any] = {
    "output_type": "generate_until",
    "doc_to_text": "{{q}}:",
    "doc_to_target": "text",
    "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6, "do_sample": False},
}
KINDS: dict[str, dict[str, Any]] = {
    "accuracy": CHOICES,
    "the same choices for all": NAMED,
    "shots that are drawn": {**CHOICES, "num_fewshot": 2, "fewshot_split": "test"},
    "a choice's length": {**CHOICES, "metric_list": [{"metric": "acc_norm", **MEAN}]},
    "bytes": {**CHOICES, "metric_list": [{"metric": "acc_bytes", **MEAN}]},
    "mutual information": {**CHOICES, "metric_list": [{"metric": "acc_mutual_info", **MEAN}]},
    "several right choices": {**CHOICES, "doc_to_target": "{{ [right, 0] }}"},
    "a right choice by its text": {**CHOICES, "doc_to_target": "{{ words[right] }}"},
    "contexts that differ": {**CHOICES, "doc_to_text": "right", "doc_to_target": "{{ 'says ' + text }}"},
    "written": {**WRITTEN, "metric_list": [{"metric": "exact_match", **MEAN}]},
}


def ask(
    learner: Learner, file: Path | str, limit: int | None = None, data_dir: Path | None = None
) -> tuple[Benchmark, ScoredTask, Predictions]:
    (task,) = load_benchmarks([str(file)], data_dir, limit)
    scored = scored_task(Asking(EvaluationSettings(limit=limit)), task, task.prompt, learner, 64)
    return task, scored, evaluate(learner, Method(), scored)


def theirs(model: Any, file: Path | str, measured: str, data_dir: Path | None = None) -> dict[str, Any]:
    """lm-eval's own record of each question under the first filter, by the example's id."""
    probe: Any = make_probe("general", {"tasks": [str(file)]}, data_dir)
    return {
        f"{name}-{one['doc_id']}": one
        for name, samples in probe.samples(model).items()
        for one in samples
        if one["filter"] == samples[0]["filter"] and measured in one
    }


@pytest.fixture(scope="module")
def hflm(tiny_llama: Path) -> Any:
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(tiny_llama), device="cpu", dtype="float32", batch_size=3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_is_right_where_lm_eval_says_so(
    kind: str, make_benchmark: Make, learner: Learner, hflm: Any
) -> None:
    file = make_benchmark("own", rows(24), **KINDS[kind])
    task, scored, found = ask(learner, file)
    wanted = theirs(hflm, file, task.measure)
    assert found.ids == list(wanted)
    assert found.right(task.metric) == [bool(one[task.measure]) for one in wanted.values()]
    mean = np.mean([one[task.measure] for one in wanted.values()])
    assert measure_of(task, found) == pytest.approx(mean)
    if kind == "written":
        assert found.generated == [one["resps"][0][0] for one in wanted.values()]
        assert scored.generated
        return
    assert 0 < mean < 1
    for row, one in zip(found.log_likelihoods, wanted.values(), strict=True):
        assert row == pytest.approx([value for value, _ in one["filtered_resps"]][: len(row or ())], abs=1e-4)
    assert scored.count() == sum(len(one["arguments"]) for one in wanted.values())


def measure_of(task: Benchmark, found: Predictions) -> float:
    from forgetmenot.record.predictions import score

    value = score(task.metric, found).value
    assert value is not None
    return value


def test_of_equal_choices_the_first_is_taken_as_there(
    make_benchmark: Make, learner: Learner, hflm: Any
) -> None:
    file = make_benchmark(
        "own", [{"q": f"w{k}", "words": ["cat", "cat"], "right": k} for k in (0, 1)], **CHOICES
    )
    _, _, found = ask(learner, file)
    assert found.predicted == ["1", "1"]
    assert [one["acc"] for one in theirs(hflm, file, "acc").values()] == [1, 0]
    assert found.right("accuracy") == [True, False]


def test_what_lm_eval_takes_for_right_is_the_gold_text(make_benchmark: Make, learner: Learner) -> None:
    """Its metric may ignore case and what a pattern matches; blanks it does not ignore."""
    metric = {"metric": "exact_match", **MEAN, "ignore_case": True, "regexes_to_ignore": [","]}
    file = make_benchmark("own", rows(3), **{**WRITTEN, "metric_list": [metric]})
    task, scored, _ = ask(learner, file)
    first = task.score[0]
    assert scored.generation is not None
    decoding = scored.generation.decoding

    def said(text: str) -> tuple[str, bool]:
        read = task.written(first, text, decoding)
        return read, measure("exact_match", [str(first.target)], [read]).value == 1

    assert first.target == "cat"
    assert said("cat") == ("cat", True)
    assert said("C,A,T\nand more") == ("cat", True)
    assert said("dog") == ("dog", False)
    assert said(" cat") == ("' cat'", False)


def test_a_limit_draws_the_same_sample_for_every_model(make_benchmark: Make, learner: Learner) -> None:
    file = make_benchmark("own", rows(40), **KINDS["shots that are drawn"])
    task, scored, found = ask(learner, file, limit=7)
    drawn = sample("own", range(40), 7)
    assert found.ids == [f"own-{place}" for place in drawn] != [f"own-{place}" for place in range(7)]
    assert len(scored.examples) == 7
    again = ask(learner, file, limit=7)[0]
    assert (again, again.prompt.hash) == (task, task.prompt.hash)
    assert ask(learner, file, limit=8)[0].prompt.hash != task.prompt.hash


def test_people_read_the_question_and_its_choices(make_benchmark: Make, learner: Learner) -> None:
    shown = ask(learner, make_benchmark("own", rows(3), **KINDS["shots that are drawn"]))[2]
    assert shown.prompt_text[1] == "prompt: word 1:\n1: dog\n2: a tabby cat\n3: red"
    assert (shown.gold[1], shown.labels) == ("2", ("1", "2", "3", "4"))
    named = ask(learner, make_benchmark("named", rows(3), **NAMED))[2]
    assert (named.prompt_text[1], named.gold[1], named.labels) == ("prompt: word 1:", "dog", ("cat", "dog"))
    split = ask(learner, make_benchmark("split", rows(3), **KINDS["contexts that differ"]))[2]
    assert split.prompt_text[1] == "1: dog\n2: a tabby cat\n3: red\nthen:  says dog"


def test_choices_share_their_question(make_benchmark: Make, learner: Learner) -> None:
    ask(learner, make_benchmark("own", rows(30, choices=4), **KINDS["shots that are drawn"]))
    assert learner.counts["computed"] < learner.counts["without_sharing"] / 3


@pytest.mark.parametrize("kind", ["accuracy", "written"])
def test_a_model_without_numbers_has_no_score(kind: str, make_benchmark: Make, broken: Learner) -> None:
    _, _, found = ask(broken, make_benchmark("own", rows(3), **KINDS[kind]))
    assert found.predicted == [None] * 3
    assert found.not_finite is not None


def test_what_is_too_long_is_cut_as_there(make_benchmark: Make, learner: Learner, hflm: Any) -> None:
    long = [{**row, "q": row["q"] + " again" * (k % 2 * 60)} for k, row in enumerate(rows(6))]
    file = make_benchmark("own", long, **CHOICES)
    _, scored, found = ask(learner, file)
    wanted = theirs(hflm, file, "acc")
    for row, one in zip(found.log_likelihoods, wanted.values(), strict=True):
        assert row == pytest.approx([value for value, _ in one["filtered_resps"]], abs=1e-4)
    assert scored.encoded.truncated["examples"] == 3


@pytest.fixture
def group(make_benchmark: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Let lm-eval know a group of two tasks: group(**keys of its YAML); returns what loads it."""

    def make(**settings: Any) -> Any:
        from lm_eval.tasks import TaskManager

        for name, count in (("one", 5), ("other", 12)):
            file = make_benchmark(name, rows(count), **CHOICES)
        both = {"group": "both", "task": ["one", "other"], **settings}
        (file.parent / "both.yaml").write_text(yaml.safe_dump(both))
        manager = TaskManager(include_defaults=False, include_path=str(file.parent))
        monkeypatch.setattr(watched, "_find", lambda *_: manager)
        return manager

    return make


def test_a_group_is_one_column_over_all_its_questions(
    group: Callable[..., Any], learner: Learner, hflm: Any
) -> None:
    from lm_eval.evaluator import evaluate as by_lm_eval

    manager = group(aggregate_metric_list=[{"metric": "acc", "weight_by_size": True}])
    task, _, found = ask(learner, "both")
    wanted = by_lm_eval(hflm, manager.load(["both"]), bootstrap_iters=0)["results"]
    assert (task.name, len(found)) == ("both", 17)
    assert measure_of(task, found) == pytest.approx(wanted["both"]["acc,none"])
    assert wanted["one"]["acc,none"] != wanted["other"]["acc,none"]
    (few,) = load_benchmarks(["both"], None, 6)
    assert [one.id for one in few.score] == [found.ids[k] for k in sample("both", range(17), 6)]


def test_a_group_without_a_score_stands_for_its_tasks(group: Callable[..., Any]) -> None:
    group()
    assert [one.name for one in load_benchmarks(["both"], None, None)] == ["one", "other"]
    group(aggregate_metric_list=[{"metric": "acc", "weight_by_size": False}])
    with pytest.raises(UserError, match=r"also_score, task both: lm-eval's score .* \(one, other, …\)"):
        load_benchmarks(["both"], None, None)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "the likelihood of texts": (
        {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "text"},
        "word_perplexity of it .* is no share of right answers, .* `general`",
    ),
    "f1": (
        {**WRITTEN, "metric_list": [{"metric": "f1", "aggregation": "mean", "higher_is_better": True}]},
        "no share of right answers",
    ),
    "bleu": ({**WRITTEN, "metric_list": [{"metric": "bleu"}]}, "lm-eval's bleu of it is no share"),
    "brier": (
        {**CHOICES, "metric_list": [{"metric": "brier_score"}]},
        "lm-eval's brier_score of it is no share",
    ),
    "answers that are drawn": (
        {**WRITTEN, **KINDS["written"], "generation_kwargs": {"until": ["\n"], "do_sample": True}},
        "task own: this task samples its answers",
    ),
    "repeats": ({**KINDS["written"], "repeats": 3}, "asks each question several times"),
    "no right choice": (
        {**CHOICES, "doc_to_target": "{{ 'none' }}"},
        r"right answer to own-0 \('none'\) is none",
    ),
    "a hidden answer": ({**CHOICES, "doc_to_target": -1}, r"right answer to own-0 \(-1\) is none of its 2"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_share_of_right_answers_is_refused_before_a_model_is_loaded(
    case: str, make_benchmark: Make
) -> None:
    settings, says = REFUSED[case]
    file = make_benchmark("own", rows(3), **settings)
    with pytest.raises(UserError, match=f"(?s)evaluation.also_score.*{says}"):
        load_benchmarks([str(file)], None, None)


def test_a_name_of_ours_wins_and_files_are_told_apart(
    make_benchmark: Make, tiny_tasks: dict[str, Path]
) -> None:
    theirs, ours = str(make_benchmark("own", rows(3), **CHOICES)), str(tiny_tasks["animal"])
    names = ["sst2", "arc_easy", theirs, ours, "mnli", "glue4", "nowhere.yaml"]
    assert divided(names) == (["sst2", ours, "mnli", "glue4", "nowhere.yaml"], ["arc_easy", theirs])


def test_names_are_known_without_their_rows() -> None:
    check_benchmarks(["arc_easy", "mmlu", "boolq_without_passage"])


def test_data_that_is_nowhere_is_said(tmp_path: Path) -> None:
    with pytest.raises(
        UserError,
        match=r"also_score, task piqa: its rows, baber/piqa, cannot be had .* data_dir with general",
    ):
        load_benchmarks(["piqa"], tmp_path, None)


def test_what_is_neither_names_the_nearest_of_both() -> None:
    for name, near in (("arc_esy", "arc_easy"), ("sst22", "sst2"), ("glue-4", "glue4")):
        with pytest.raises(
            UserError, match=rf"also_score: There is no .* '{name}', .* Did you mean .*'{near}'"
        ):
            load_benchmarks([name], None, None)


@pytest.mark.slow
def test_no_name_of_lm_evals_is_taken_for_unknown() -> None:
    from lm_eval.tasks import TaskManager

    known = TaskManager().all_tasks
    some = [known[k] for k in np.random.default_rng(0).permutation(len(known))[:40]]
    unknown, named = unmentioned([*some, "ai2_arc", "arc_esy"])
    assert unknown == {"arc_esy"}
    assert len(named & set(known)) > 0.9 * len(known)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["arc_easy", "piqa", "mmlu", "boolq_without_passage"])
def test_real_questions(name: str) -> None:
    """Lm-eval asks the first so many of each task; a column of all of them would take long."""
    if not (SHARED / "models" / "base-4m").is_dir():
        pytest.skip("the real data and the trained model are not beside this checkout")
    from forgetmenot.probes.shared.lm_eval_model import LearnerLM

    real = load(SHARED / "models" / "base-4m")
    task, _, found = ask(real, name, 150, SHARED / "data")
    probe: Any = make_probe("general", {"tasks": [name]}, SHARED / "data")
    ((_, loaded),) = probe._tasks()
    places: dict[str, list[int]] = {}
    for one in found.ids:
        leaf, _, place = one.rpartition("-")
        places.setdefault(leaf, []).append(int(place))
    from lm_eval.evaluator import evaluate as by_lm_eval

    wanted = by_lm_eval(
        lm=LearnerLM(real),
        task_dict={"tasks": {leaf: loaded["tasks"][leaf] for leaf in places}},
        samples=places,
        bootstrap_iters=0,
    )
    verdicts = {f"{leaf}-{one['doc_id']}": one for leaf, rows in wanted["samples"].items() for one in rows}
    assert found.right(task.metric) == [bool(verdicts[one]["acc"]) for one in found.ids]
