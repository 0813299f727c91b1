"""A report of very many tasks or stages stays one that a browser can show."""

import re
from collections.abc import Callable
from pathlib import Path

from forgetmenot.record.results import RunResults, load_results
from forgetmenot.report.html import MOST_STAGES, MOST_TASKS, shown, write_report

MakeRun = Callable[..., Path]


def test_beyond_sixty_tasks_the_worst_are_shown_in_full_and_the_others_folded_away(make_run: MakeRun) -> None:
    names = [f"task-{k:03}" for k in range(MOST_TASKS + 10)]
    run_dir = make_run("joint", names, n=40)
    page = write_report(run_dir).read_text()
    results = load_results(run_dir)
    columns, rows = shown(results)
    assert rows == [0, 1]
    assert {results.tasks[j] for j in columns} == {one.task for one in results.worst_first[:MOST_TASKS]}
    assert "The other 10 tasks" in page
    assert f"shows {MOST_TASKS} of {len(names)} tasks" in page
    outcomes, matrix = page.split('<h2 id="matrix">')
    assert all(name.replace("-", "-<wbr>") in outcomes for name in names)
    assert len(re.findall(r'<td class="(?:heat|below)', matrix)) == 2 * MOST_TASKS


def test_of_very_many_stages_those_of_the_tasks_shown_are() -> None:
    stages = [{"name": "00-base", "trains_on": []}]
    stages += [{"name": f"{k}", "trains_on": ["mine"] if k == 7 else []} for k in range(1, MOST_STAGES + 1)]
    results = {"tasks": ["mine"], "metrics": {"mine": "accuracy"}, "summary": {}, "stages": stages}
    assert shown(RunResults({**results, "matrix": [[0.5]] * len(stages)}))[1] == [0, 7, MOST_STAGES]
    fewer = {**results, "stages": stages[:-1]}
    assert shown(RunResults({**fewer, "matrix": [[0.5]] * MOST_STAGES}))[1] == list(range(MOST_STAGES))


def test_a_page_grows_with_its_tasks_and_no_faster(make_run: MakeRun) -> None:
    sizes = [
        len(write_report(make_run("joint", [f"task-{k:03}" for k in range(count)], n=20)).read_text())
        for count in (100, 200, 300)
    ]
    assert sizes[2] - sizes[1] < 1.1 * (sizes[1] - sizes[0])
