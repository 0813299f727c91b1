"""Runs side by side: groups, tests, effects and sentences, against hand computations."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from forgetmenot.metrics import holm
from forgetmenot.record.predictions import read_predictions, write_predictions
from forgetmenot.report.comparison.comparison import Comparison
from forgetmenot.report.comparison.conclusions import conclusions
from forgetmenot.report.comparison.page import comparison_page
from forgetmenot.report.comparison.runs import ComparedRun, level_name, read_run
from forgetmenot.report.comparison.tables import group_rows, print_comparison, table_files
from forgetmenot.report.comparison.weighted import END, LOST, weighted
from tests.report.compared_runs import forgetful, identity_gap, write_answers

Make = Callable[..., Comparison]
MODELS = {"owner/alpha": 0.8, "owner/beta": 0.55}


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Two models × two prompts × two seeds; alpha keeps .8 of the first task, beta .55."""

    def make(
        failing: str | None = None,
        models: Mapping[str, float] = MODELS,
        seeds: Sequence[int] = (0, 1),
        haque: bool = False,
    ) -> Comparison:
        runs = []
        for m, (model, kept) in enumerate(models.items()):
            for p, prompt in enumerate(("plain", "terse")):
                for seed in seeds:
                    varies = {"model": model, "prompt": prompt, "seed": seed}
                    name = f"{model[6:]}-{prompt}-{seed}"
                    if model == failing:
                        runs.append(ComparedRun(name, varies, failed=f"Model {model!r} is gated."))
                        continue
                    right = forgetful(
                        seed=100 * m + 10 * p + seed, learned=0.9 - 0.1 * p, kept=kept - 0.1 * p
                    )
                    write_answers(tmp_path / name, right, model=model, parameters=1000 * 10**m)
                    runs.append(read_run(tmp_path / name, varies))
        return Comparison("mine", runs, haque=haque)

    return make


def test_a_group_has_the_figures_of_its_runs(make: Make) -> None:
    comparison = make()
    assert comparison.keys == ["model", "prompt", "seed"]
    assert comparison.kind == "model"
    assert [one.name for one in comparison.groups] == ["alpha", "beta"]
    alpha = comparison.groups[0]
    values = [run.results.summary["haque"]["forgetting_sum"] for run in alpha.runs if run.results]
    found = alpha.spread("haque_forgetting_sum")
    assert found is not None
    assert (found.mean, found.std) == pytest.approx((np.mean(values), np.std(values, ddof=1)))
    assert [one.parameters for one in comparison.groups] == [1000, 10000]
    assert [one.name for one in comparison.ranked] == ["alpha", "beta"]


def test_who_learns_all_at_once_is_not_ranked_among_those_that_learn_in_turn(make: Make) -> None:
    runs = make().runs
    for run in runs:
        if run.results and run.varies["model"] == "owner/alpha":
            run.results.summary = {**run.results.summary, "backward_transfer": None}
    assert [one.name for one in Comparison("mine", runs).ranked] == ["beta"]
    assert conclusions(Comparison("mine", runs))[0].startswith("beta loses 0.")
    assert conclusions(Comparison("mine", runs, haque=True))[0].startswith("beta forgets 0.")
    for run in runs:
        if run.results:
            run.results.summary = {**run.results.summary, "backward_transfer": None}
    assert [one.name for one in Comparison("mine", runs, haque=True).ranked] == ["alpha", "beta"]
    assert Comparison("mine", runs).ranked == [], "nothing came after what was learned"


def test_what_was_not_learned_is_one_sentence(make: Make) -> None:
    runs = make().runs
    for run in runs:
        if run.results:
            run.results.not_learned = ("b",) if run.varies["model"] == "owner/beta" else ()
    assert (
        "What is not learned cannot be forgotten; not above chance after its own stage: beta on "
        "b in 4 of 4 runs."
    ) in conclusions(Comparison("mine", runs))


def test_models_are_tested_in_runs_that_are_alike_in_all_else(make: Make) -> None:
    comparison = make()
    test = comparison.test("alpha", "beta", LOST)
    drops = {
        model: [
            run.results.matrix[1][0] - run.results.matrix[2][0]
            for run in comparison.runs
            if run.varies["model"] == model and run.results
        ]
        for model in MODELS
    }
    first, second = drops.values()
    assert test.matched == 4
    assert test.values == pytest.approx((np.mean(first), np.mean(second)))
    assert test.contrast is not None
    assert test.contrast.difference == pytest.approx(np.mean(first) - np.mean(second))
    assert test.lower == sum(a < b for a, b in zip(first, second, strict=True))
    turned = comparison.test("beta", "alpha", LOST)
    assert turned.contrast is not None
    assert turned.contrast.difference == -test.contrast.difference
    assert turned.contrast.interval == tuple(-end for end in reversed(test.contrast.interval))
    assert (turned.lower, turned.higher) == (test.higher, test.lower)


def test_holm_is_over_every_test_of_the_comparison(make: Make) -> None:
    comparison = make()
    assert [(test.factor, test.figure) for test in comparison.tests] == [
        ("group", END),
        ("group", LOST),
        ("prompt", END),
        ("prompt", LOST),
    ]
    p = [test.contrast.p for test in comparison.tests if test.contrast and test.contrast.p is not None]
    assert [test.p_holm for test in comparison.tests] == pytest.approx(holm(p))


def test_an_effect_holds_all_else_equal(make: Make) -> None:
    comparison = make()
    effect = comparison.effect("prompt", "haque_final_mean")
    assert effect is not None
    table = pd.DataFrame([{**run.varies, "y": run.figure("haque_final_mean")} for run in comparison.finished])
    means = table.groupby("prompt")["y"].mean()
    assert effect.levels == pytest.approx(means.to_dict())
    assert effect.range == pytest.approx(means.max() - means.min())
    assert effect.blocks == 4
    between = sum(4 * (mean - table["y"].mean()) ** 2 for mean in means)
    assert effect.share == pytest.approx(between / ((table["y"] - table["y"].mean()) ** 2).sum())
    within = table.groupby(["model", "prompt"])["y"].var(ddof=1).mean()
    assert comparison.seed_deviation("haque_final_mean") == pytest.approx(math.sqrt(within))


def test_where_runs_are_missing_an_effect_is_over_whole_blocks_and_has_no_share(make: Make) -> None:
    whole = make()
    without = Comparison("mine", [*whole.runs[:-1], replace(whole.runs[-1], results=None, failed="Full.")])
    effect = without.effect("prompt", "haque_final_mean")
    assert effect is not None
    assert (effect.blocks, effect.share) == (3, None)
    kept = [
        run for run in whole.runs if not (run.varies["model"] == "owner/beta" and run.varies["seed"] == 1)
    ]
    mean = np.mean([run.figure("haque_final_mean") for run in kept if run.varies["prompt"] == "plain"])
    assert effect.levels["plain"] == pytest.approx(mean)


def test_the_sentences_answer_what_a_reader_asks(make: Make) -> None:
    said = conclusions(make(seeds=range(5)))
    assert said[0].startswith("alpha loses least: 0.")
    assert "a task since learning it (mean over 10 runs) against beta 0." in said[0]
    assert said[1].startswith("That is significant, over 5 seeds and the examples together: alpha lost 0.")
    assert "after Holm’s correction over 4 tests), and less in 10 of 10 matched pairs" in said[1]
    assert said[2].startswith("alpha ends highest, at a mean of 0.")
    (prompt,) = [sentence for sentence in said if sentence.startswith("The prompt")]
    assert "of all variance among the runs; 1 of 1 pairs of prompts differ significantly" in prompt
    assert any(sentence.startswith("The seed alone") for sentence in said)
    assert not any(sentence.startswith("The order") for sentence in said)


def test_forgetting_is_haques_only_beside_his_paper(make: Make) -> None:
    comparison = make(haque=True)
    said = conclusions(comparison)
    assert said[0].startswith("alpha forgets least: 0.")
    assert "a task (Haque’s forgetting, mean over 4 runs) against beta 0." in said[0]
    assert "; noise alone would show 0." in said[0]
    page = comparison_page(comparison)
    assert "forgetting, sum" in page
    assert "Haque’s forgetting a task" in page
    usual = Comparison("mine", comparison.runs)
    assert "Haque" not in comparison_page(usual)
    assert "Haque" not in " ".join(conclusions(usual))
    table = table_files(comparison, "report")["report.tex"]
    assert r"\begin{tabular}{lrrrrrrrrr}" in table


def test_what_single_runs_forgot_is_said_by_their_verdicts(make: Make) -> None:
    comparison = make()
    for number, run in enumerate(comparison.runs):
        assert run.results is not None
        lost = run.varies["model"] == "owner/beta"
        run.results.verdicts = {
            "base_end": {
                "a": verdict("forgotten" if lost else "kept"),
                "corpus": verdict("forgotten" if lost and number % 2 else "cannot tell"),
            },
            "own_end": {"a": verdict("kept")},
        }
    said = conclusions(comparison)
    assert (
        "Forgotten against the base model: beta: a in 4 and corpus in 2 of 4 runs; in 6 it cannot be told."
        in said
    )
    assert "No task is shown to be forgotten since its own stage in any run." in said


def verdict(decision: str) -> Any:
    return {"decision": decision}


def test_with_one_seed_no_sentence_speaks_of_the_models(make: Make) -> None:
    """What distinguishes two checkpoints need not distinguish what made them."""
    comparison = make(seeds=(0,))
    said = conclusions(comparison)
    assert said[0].startswith("The checkpoint of alpha loses least: 0.")
    assert said[1].startswith(
        "That is significant, over the same examples and with one training seed, so that it speaks of these "
        "checkpoints alone: alpha lost 0."
    )
    assert said[2].startswith("The checkpoint of alpha ends highest")
    tests = [test.contrast for test in comparison.tests if test.contrast]
    assert {one.seeds for one in tests} == {1}


def test_what_asking_the_base_again_changes_is_said_by_the_worst_case(make: Make) -> None:
    comparison = make()
    results = [run.results for run in comparison.runs]
    for number, one in enumerate(results):
        assert one is not None
        one.asked_again = {"reply": {"n": 64, "different": number % 2, "flipped": 0}}
    assert results[3] is not None
    results[3].asked_again = {"reply": {"n": 64, "different": 16, "flipped": 2}}
    (told,) = [sentence for sentence in conclusions(comparison) if "Asked again" in sentence]
    assert (
        "up to 25% of the examples otherwise (reply in alpha-terse-1): smaller differences are noise" in told
    )


def test_means_are_over_the_conditions_that_all_have_finished_with(make: Make) -> None:
    """One more seed of alpha alone, in which it forgets everything, changes nothing."""
    whole = make()
    worse = make(models={"owner/alpha": 0.1}, seeds=(7,)).runs
    more = Comparison("mine", [*whole.runs, *worse])
    assert conclusions(more)[0] == conclusions(whole)[0]
    assert [one.name for one in more.ranked] == ["alpha", "beta"]


def test_of_two_equal_models_neither_is_said_to_be_better(make: Make) -> None:
    said = conclusions(make(models={"owner/alpha": 0.6, "owner/beta": 0.6}))
    assert said[1].startswith("That is not significant, over 2 seeds and the examples together: ")


def test_a_tie_has_no_winner(make: Make) -> None:
    runs = make(seeds=range(5)).runs
    twins = [replace(run, varies={**run.varies, "model": "owner/twin"}) for run in runs[:10]]
    two = conclusions(Comparison("mine", [*runs[:10], *twins]))
    assert two[0].startswith("alpha and twin lose alike: 0.")
    assert "against" not in two[0]
    assert two[1].startswith(
        "Tested, no difference can be told from chance, over 5 seeds and the examples together: alpha lost 0."
    )
    assert two[2].startswith("alpha and twin end alike, at a mean of 0.")
    three = conclusions(Comparison("mine", [*runs, *twins]))
    assert three[0].startswith("alpha and twin lose alike and least: 0.")
    assert " against beta 0." in three[0]
    assert ", alpha lost significantly less than beta; no difference of alpha to twin can be " in three[1]
    assert three[2].startswith("alpha and twin end highest, alike, at a mean of 0.")
    for sentence in (*two, *three):
        assert "loses least" not in sentence
        assert "ends highest" not in sentence


def test_checkpoints_that_are_alike_are_checkpoints(make: Make) -> None:
    runs = make(seeds=(0,)).runs[:2]
    twins = [replace(run, varies={**run.varies, "model": "owner/twin"}) for run in runs]
    said = conclusions(Comparison("mine", [*runs, *twins]))
    assert said[0].startswith("The checkpoints of alpha and twin lose alike: 0.")
    assert said[2].startswith("The checkpoints of alpha and twin end alike")


def test_of_many_models_the_sentences_count(make: Make) -> None:
    models = {
        f"owner/{letter}{letter}": kept for letter, kept in zip("abcd", (0.8, 0.55, 0.5, 0.79), strict=True)
    }
    said = conclusions(make(models=models, seeds=range(5), haque=True))
    assert said[0].startswith("aa and dd forget alike and least: 0.")  # to the three decimals that are shown
    assert "lost significantly less than bb and cc; no difference of " in said[1]


def test_a_failed_model_is_named_and_the_rest_is_compared(make: Make) -> None:
    comparison = make(failing="owner/beta")
    assert [one.name for one in comparison.groups] == ["alpha", "beta"]
    assert comparison.groups[1].spread("haque_final_mean") is None
    assert [test.factor for test in comparison.tests] == ["prompt", "prompt"]
    assert list(comparison.failures) == ["Model 'owner/beta' is gated."]
    said = conclusions(comparison)
    assert said[-1] == "4 of 8 runs failed; the reasons are at the end of the page."
    screen = io.StringIO()
    print_comparison(comparison, Console(file=screen, width=160))
    assert "4 runs (beta-plain-0 and others) failed: Model 'owner/beta' is gated." in screen.getvalue()


def test_a_prompt_with_which_nothing_finished_is_left_out(make: Make) -> None:
    runs = [
        run if run.varies["prompt"] == "plain" else ComparedRun(run.name, run.varies, failed="Full.")
        for run in make().runs
    ]
    comparison = Comparison("mine", runs)
    assert comparison.effect("prompt", "haque_final_mean") is None
    assert [test.factor for test in comparison.tests] == ["group", "group"]
    assert any(said.startswith("How much the prompt matters is open") for said in conclusions(comparison))
    assert "How much the prompt matters" in comparison_page(comparison)


def test_where_a_whole_model_failed_the_rest_is_still_crossed(make: Make) -> None:
    effect = make(failing="owner/beta").effect("prompt", "haque_final_mean")
    assert effect is not None
    assert effect.blocks == 2
    assert effect.share is not None


def test_where_every_run_failed_that_is_said() -> None:
    failed = ComparedRun("x", {"seed": 0}, failed="No.")
    assert conclusions(Comparison("mine", [failed])) == [
        "1 of 1 run failed; the reasons are at the end of the page."
    ]


def test_runs_over_other_examples_are_not_held_against_one_another(tmp_path: Path) -> None:
    runs = []
    for first, model in ((0, "alpha"), (5, "beta")):
        path = write_answers(tmp_path / model, forgetful(first), model=model, first_example=first)
        runs.append(read_run(path, {"model": model}))
    test = Comparison("mine", runs).test("alpha", "beta", END)
    assert test.contrast is None
    assert test.reason == "alpha and beta were asked different examples."


def test_answers_that_do_not_give_the_runs_own_scores_are_not_used(tmp_path: Path) -> None:
    path = write_answers(tmp_path / "one", forgetful(0))
    file = path / "stages" / "02-b" / "predictions.parquet"
    answers = {
        task: replace(one, predicted=[*one.gold], prompt_text=[], source=[])
        for task, one in read_predictions(file).items()
    }
    file.unlink()
    write_predictions(file, answers)
    run = read_run(path, {"model": "a"})
    assert run.replicates is None
    assert run.unpaired == "one: accuracy on a after 02-b is not what its predictions give."


def test_draws_are_those_of_the_runs_own_intervals(tmp_path: Path) -> None:
    """A comparison's bootstrap is the run's: the same draws, so the same spread of every cell."""
    run = read_run(write_answers(tmp_path / "one", forgetful(0)), {"model": "a"})
    assert run.replicates is not None
    assert run.results is not None
    assert run.replicates.values.mean(axis=0) == pytest.approx(np.array(run.results.matrix), abs=0.01)


def test_every_run_obeys_the_identity_of_the_papers_figures(make: Make) -> None:
    gaps = [identity_gap(run.results.summary) for run in make().runs if run.results]
    assert gaps == pytest.approx([0.0] * 8, abs=1e-12)


def test_models_are_called_by_the_last_part_of_their_name_where_that_is_their_own() -> None:
    models: list[Any] = ["a/one", {"name": "b/two", "allow_bin": True}]
    assert [level_name("model", model, models) for model in models] == ["one", "two"]
    assert level_name("model", "a/one", ["a/one", "b/one"]) == "a/one"
    quantized = [{"name": "a/one"}, {"name": "a/one", "quantization": "nf4"}]
    assert level_name("model", quantized[1], quantized) == "a/one (quantization nf4)"
    assert level_name("training.epochs", 2, [1, 2]) == "training.epochs 2"
    assert level_name("method", {"name": "ewc", "strength": 1}, []) == "ewc (strength 1)"


def test_the_tables_hold_every_group_run_and_test(make: Make) -> None:
    comparison = make(failing="owner/beta")
    files = table_files(comparison, "report")
    assert list(files) == ["report.csv", "report-runs.csv", "report-tests.csv", "report.tex"]
    groups = pd.read_csv(io.StringIO(files["report.csv"]))
    assert list(groups["model"]) == ["alpha", "beta"]
    assert list(groups["failed"]) == [0, 4]
    found = comparison.groups[0].spread("haque_learning_sum")
    assert found is not None
    assert groups["haque_learning_sum"][0] == pytest.approx(found.mean)
    assert pd.isna(groups["haque_learning_sum"][1])
    runs = pd.read_csv(io.StringIO(files["report-runs.csv"]))
    assert len(runs) == 8
    assert list(runs["failed"].notna()) == [False] * 4 + [True] * 4
    tests = pd.read_csv(io.StringIO(files["report-tests.csv"]))
    assert list(tests["factor"]) == ["prompt", "prompt"]
    assert list(tests["p_holm"].between(0, 1)) == [True, True]


def test_the_latex_table_is_one_of_booktabs_with_every_special_character_escaped(tmp_path: Path) -> None:
    runs = [
        read_run(write_answers(tmp_path / name, forgetful(k), model=name), {"model": name})
        for k, name in enumerate(("a_1", "b&2%"))
    ]
    table = table_files(Comparison("mine", runs), "report")["report.tex"]
    lines = table.splitlines()
    assert lines[1] == r"\begin{tabular}{lrrrrr}"
    assert [lines[2], lines[4], lines[7], lines[8]] == [
        r"\toprule", r"\midrule", r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    assert lines[5].startswith(r"a\_1 & 0.")
    assert lines[6].startswith(r"b\&2\% & 0.")
    assert all(line.count(" & ") == 5 and line.endswith(r" \\") for line in (lines[3], *lines[5:7]))
    assert "−" not in table


def test_files_are_called_by_their_names_where_these_are_their_own() -> None:
    orders = [["/home/me/tasks/animal.yaml", "sst2"], ["sst2", "/home/me/tasks/animal.yaml"]]
    assert [level_name("order", one, orders) for one in orders] == ["animal,sst2", "sst2,animal"]
    prompts: list[Any] = ["default", "/home/me/chosen.yaml"]
    assert level_name("prompt", prompts[1], prompts) == "chosen"
    alike = [["/one/animal.yaml"], ["/other/animal.yaml"]]
    assert level_name("tasks", alike[0], alike) == "tasks /one/animal.yaml"


def _written(folder: Path, method: str, tasks: str, seed: int = 0, kept: float = 0.6) -> ComparedRun:
    write_answers(folder / f"{method}-{seed}", forgetful(seed=seed, kept=kept, tasks=tasks))
    return read_run(folder / f"{method}-{seed}", {"method": method, "seed": seed})


def test_only_tasks_that_all_runs_have_are_compared(tmp_path: Path) -> None:
    short = _written(tmp_path, "sequential", "ab")
    long = _written(tmp_path, "replay", "abc", kept=0.8)
    assert long.results is not None
    comparison = Comparison("mine", [short, long])
    said = "Compared on a and b alone, which all runs were scored on; c left out."
    assert comparison.left_out == said
    assert said in conclusions(comparison)
    here = next(run.results for run in comparison.runs if run.varies["method"] == "replay")
    assert here is not None
    assert here.tasks == ("a", "b")
    last, own = long.results.matrix[-1], long.results.matrix
    ends = [float(last[0] or 0), float(last[1] or 0)]
    assert here.summary["average_performance"] == pytest.approx(np.mean(ends))
    drops = [float(own[1][0] or 0) - ends[0], float(own[2][1] or 0) - ends[1]]
    assert here.summary["backward_transfer"] == pytest.approx(-np.mean(drops)), "b too has a later stage"
    test = comparison.test("sequential", "replay", END)
    assert test.reason is None
    assert test.values is not None
    assert test.values[1] == pytest.approx(np.mean(ends))


def test_runs_of_the_same_tasks_stay_as_they_are_and_so_do_those_of_none_in_common(tmp_path: Path) -> None:
    one, other = _written(tmp_path, "sequential", "ab"), _written(tmp_path, "replay", "ab")
    assert Comparison("mine", [one, other]).left_out is None
    apart = Comparison("mine", [one, _written(tmp_path, "joint", "cd")])
    assert apart.left_out is None
    assert "different examples" in str(apart.test("sequential", "joint", END).reason)


def test_the_page_shows_each_task_and_links_each_run(tmp_path: Path) -> None:
    runs = [
        _written(tmp_path, method, "ab", seed, kept)
        for method, kept in (("sequential", 0.6), ("replay", 0.8))
        for seed in (0, 1)
    ]
    (tmp_path / "replay-1" / "report.html").write_text("its report", encoding="utf-8")
    comparison = Comparison("mine", runs)
    scores = {group.name: group.tasks() for group in comparison.groups}
    ends = [float(run.results.matrix[-1][0] or 0) for run in runs[:2] if run.results]
    learned = [float(run.results.matrix[1][0] or 0) for run in runs[:2] if run.results]
    assert scores["sequential"]["a"].end == pytest.approx(np.mean(ends))
    assert scores["sequential"]["a"].since == pytest.approx(np.mean(ends) - np.mean(learned))
    assert scores["sequential"]["b"].since is None, "nothing came after the last task"
    page = comparison_page(comparison, folder=tmp_path)
    assert '<a href="replay-1/report.html">replay-1</a>' in page
    assert "sequential-0/report.html" not in page, "there is no such file"
    assert "Task by task" in page
    assert 'svg class="bars"' in page
    assert "| sequential | 0." in page
    assert "method,parameters,runs" in page
    assert "href=" not in comparison_page(comparison).partition("<body>")[2], "nothing to link from nowhere"


def test_a_row_is_named_by_what_tells_it_and_the_rest_is_a_detail(tmp_path: Path) -> None:
    """Each method of a grid of methods and rates has its own rate: its name says enough."""

    def compared(*rows: tuple[Any, float]) -> Comparison:
        runs = []
        for k, (method, rate) in enumerate(rows):
            write_answers(tmp_path / f"{len(rows)}-{k}", forgetful(seed=k, kept=0.7))
            varies = {"method": method, "training.learning_rate": rate, "seed": 0}
            runs.append(read_run(tmp_path / f"{len(rows)}-{k}", varies))
        return Comparison("mine", runs)

    own = compared(("sequential", 0.001), ({"name": "replay", "share": 0.1}, 0.002))
    assert [one.name for one in own.groups] == ["sequential", "replay (share 0.1)"]
    assert [one.details for one in own.groups] == [
        "training.learning_rate 0.001",
        "training.learning_rate 0.002",
    ]
    assert own.kind == "method"
    assert group_rows(own)[1]["details"] == "training.learning_rate 0.002"
    page = comparison_page(own).replace("<wbr>", "")
    assert '<span class="metric">training.learning_rate 0.002</span>' in page
    both = compared(("sequential", 0.001), ("sequential", 0.002), ("joint", 0.001))
    assert [one.name for one in both.groups][:2] == [
        "sequential, training.learning_rate 0.001",
        "sequential, training.learning_rate 0.002",
    ]
    assert both.kind == "setting"
    assert not any(one.details for one in both.groups)
    assert "details" not in group_rows(both)[0]


def _seeded(folder: Path, method: str, seeds: Sequence[int], kept: float) -> list[ComparedRun]:
    runs = []
    for seed in seeds:
        path = write_answers(folder / f"{method}-{seed}", forgetful(seed=seed + 50 * len(method), kept=kept))
        runs.append(read_run(path, {"method": method, "seed": seed}))
    return runs


def test_a_group_with_few_seeds_takes_no_runs_from_the_others(tmp_path: Path) -> None:
    full = [*_seeded(tmp_path, "a", range(6), 0.7), *_seeded(tmp_path, "bb", range(6), 0.8)]
    few = _seeded(tmp_path, "ccc", range(2), 0.9)
    alone, beside = Comparison("mine", full), Comparison("mine", [*full, *few])
    assert [one.name for one in beside.ranked] == [one.name for one in alone.ranked] == ["bb", "a"]
    assert [len(one.finished) for one in beside.ranked] == [6, 6]
    said = conclusions(beside)
    assert said[0].startswith(
        "Not ranked, because of too few orders, prompts and seeds beside the others’: ccc (2 runs)"
    )
    assert said[1] == conclusions(alone)[0]
    assert beside.test("bb", "ccc", LOST).contrast.seeds == 2  # type: ignore[union-attr]
    half = Comparison("mine", [*full, *_seeded(tmp_path, "dddd", range(3), 0.9)])
    assert {len(one.finished) for one in half.ranked} == {3}, "half of them is enough"


def test_one_seed_in_common_is_told_as_checkpoints_though_others_have_more(tmp_path: Path) -> None:
    three, one = _seeded(tmp_path, "a", range(3), 0.7), _seeded(tmp_path, "bb", [0], 0.95)
    found = Comparison("mine", [*three, *one])
    test = found.test("a", "bb", LOST)
    assert test.contrast is not None
    assert test.contrast.seeds == 1
    assert not any("over 3 seeds" in sentence for sentence in conclusions(found))
    two = Comparison("mine", [*three, *_seeded(tmp_path / "more", "bb", range(2), 0.95)])
    assert any("over 2 seeds and the examples together" in sentence for sentence in conclusions(two))


def test_seeds_count_alike_however_many_runs_each_has(tmp_path: Path) -> None:
    """Two orders of seed 0 have finished and one of seed 1: the mean is over the seeds' means."""
    runs: dict[str, list[ComparedRun]] = {"a": [], "bb": []}
    for method, kept in (("a", (0.6, 0.6, 0.9)), ("bb", (0.9, 0.9, 0.6))):
        for k, (seed, order) in enumerate(((0, "x"), (0, "y"), (1, "x"))):
            path = write_answers(tmp_path / f"{method}-{k}", forgetful(seed=k, kept=kept[k]))
            runs[method].append(read_run(path, {"method": method, "seed": seed, "order": [order]}))
    found = weighted([(1.0, runs["a"]), (-1.0, runs["bb"])], END)
    assert found.means[0] - found.means[1] == pytest.approx(np.mean(found.by_seed))
    assert found.resampled.shape[0] == 2
    by_hand = [
        np.mean([v for v, s in zip(found.values[0], (0, 0, 1), strict=True) if s == k]) for k in (0, 1)
    ]
    assert found.means[0] == pytest.approx(np.mean(by_hand))
