import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from forgetmenot.errors import UserError
from forgetmenot.metrics import FORMULAS
from forgetmenot.report.html import write_report

MakeRun = Callable[..., Path]


class Page(HTMLParser):
    """What a reader finds: the words under each second heading, and the tags with what they ask for."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.sections: dict[str, str] = {"": ""}
        self.tags: list[tuple[str, dict[str, str]]] = []
        self._current = ""
        self._in_heading = self._in_style = False
        self.feed(html)
        self.sections = {title: " ".join(words.split()) for title, words in self.sections.items()}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        self._in_style = tag == "style"
        if tag == "h2":
            self._in_heading, self._current = True, ""

    def handle_endtag(self, tag: str) -> None:
        self._in_style = False
        if tag == "h2":
            self._in_heading = False
            self.sections[self._current] = ""

    def handle_data(self, data: str) -> None:
        if self._in_heading:
            self._current += data
        elif not self._in_style:
            self.sections[self._current] += f" {data}"

    def of(self, tag: str, css_class: str) -> list[dict[str, str]]:
        return [
            attrs for name, attrs in self.tags if name == tag and css_class in attrs.get("class", "").split()
        ]


def read(run_dir: Path) -> Page:
    return Page(write_report(run_dir).read_text(encoding="utf-8"))


def test_a_reader_finds_the_sections_in_order(make_run: MakeRun) -> None:
    assert list(read(make_run(missing=[(2, "sst2")])).sections)[1:] == [
        "Lost, kept and gained",
        "Scores after every stage",
        "Scores over the stages",
        "The run in numbers",
        "Examples that were lost",
        "Training loss",
        "Further readings",
        "Missing cells",
        "Costs",
        "Settings",
    ]


def test_the_verdict_opens_the_page(make_run: MakeRun) -> None:
    head = read(make_run(never_learned=["cola"])).sections[""]
    assert "What base-4m learned and forgot" in head
    assert "base-4m forgot mrpc (0.850" in head
    assert head.index("forgot mrpc") < head.index("it learned sst2")
    assert "did not rise above chance on cola" in head


def test_the_matrix_shows_every_score_with_its_interval_and_mark(make_run: MakeRun) -> None:
    run_dir = make_run(never_learned=["cola"])
    page = read(run_dir)
    results = json.loads((run_dir / "results.json").read_text())
    words = page.sections["Scores after every stage"]
    for scores, spans in zip(results["matrix"], results["intervals"]["matrix"], strict=True):
        for score, (low, high) in zip(scores, spans, strict=True):
            assert f"{score:.3f}" in words
            assert f"{low:.3f}–{high:.3f}" in words
    assert len(page.of("td", "own")) == 4
    assert words.count("just learned") == 5  # four cells and the legend
    assert "base model" in words
    sst2, mrpc, cola, mnli = (f"{level:.3f}" for level in chance_levels(run_dir).values())
    assert f"Chance level {sst2} {mrpc} {cola} not learned {mnli}" in words
    assert "−" in words


def test_colours_follow_the_scores(make_run: MakeRun) -> None:
    run_dir = make_run()
    chance = chance_levels(run_dir)
    cells = read(run_dir).of("td", "heat")
    levels = {cell["title"]: int(re.findall(r"--level: (\d+)%", cell["style"])[0]) for cell in cells}
    scores = {title: float(re.findall(r": (\d\.\d+)", title)[0]) for title in levels}
    for title, level in levels.items():
        floor = chance[title.partition(" ")[0]]
        assert level == pytest.approx(100 * (scores[title] - floor) / (1 - floor), abs=0.6)


def chance_levels(run_dir: Path) -> dict[str, float]:
    levels: dict[str, float] = json.loads((run_dir / "results.json").read_text())["majority"]
    return levels


def test_every_task_has_a_curve_that_can_be_heard(make_run: MakeRun) -> None:
    curves = read(make_run()).of("svg", "curve")
    assert [curve["aria-label"].split(",")[0] for curve in curves] == ["sst2", "mrpc", "cola", "mnli"]
    assert all(curve["role"] == "img" for curve in curves)


def test_the_verdicts_say_how_sure_and_the_worst_comes_first(make_run: MakeRun) -> None:
    page = read(make_run(never_learned=["cola"], also_score=["rte"]))
    words = page.sections["Lost, kept and gained"].replace("\N{NO-BREAK SPACE}", " ")
    for pair in ("Base model → end", "Own stage → end", "Base model → own stage"):
        assert pair in words
    assert re.search(r"mrpc 400 examples margin 3 points .*forgotten 0\.850 → 0\.562 −28\.7 points", words)
    assert "−33.5 to −24.4" in words
    assert re.search(r"cannot tell .* about \d+ would do", words)
    order = [words.index(f"{task} 400 examples") for task in ("mrpc", "sst2", "cola", "rte", "mnli")]
    assert order == sorted(order)
    assert len(page.of("span", "lost")) == 2


def test_every_number_carries_its_interval_its_noise_floor_and_its_formula(make_run: MakeRun) -> None:
    words = read(make_run()).sections["The run in numbers"]
    for name in ("average_performance", "backward_transfer", "forgetting"):
        assert " ".join(FORMULAS[name].formula.split()) in words
        assert FORMULAS[name].meaning in words
    assert "noise floor 0.014" in words
    assert "95 % interval" in words
    assert "Taken over sst2, mrpc, cola, mnli." in words
    assert "Forgetting (Chaudhry)" in words
    assert "Haque" not in words, "two meanings of forgetting on one page"


def test_the_metric_of_the_tasks_has_its_formula_too(make_run: MakeRun) -> None:
    assert FORMULAS["accuracy"].formula in read(make_run()).sections["Scores after every stage"]


def test_a_number_that_cannot_be_had_gives_its_reason(make_run: MakeRun) -> None:
    words = read(make_run(tasks=["sst2"])).sections["The run in numbers"]
    assert "– The only task was learned in the last stage, so nothing came after to forget it." in words


def test_forgotten_examples_can_be_read(make_run: MakeRun) -> None:
    words = read(make_run(text="An unforgettable film.")).sections["Examples that were lost"]
    assert "An unforgettable film." in words
    assert re.search(r"sst2 since its own stage: \d+ of 400 lost, \d+ gained", words)
    assert re.search(r"Said then (positive|negative) \(\d+ %\) Says now (positive|negative) \(\d+ %\)", words)


def test_a_long_text_is_cut(make_run: MakeRun) -> None:
    words = read(make_run(text="word " * 1000)).sections["Examples that were lost"]
    assert "word …" in words
    assert max(len(text) for text in words.split("…")) < 700


def test_further_readings_show_only_their_columns(make_run: MakeRun) -> None:
    words = read(make_run()).sections["Further readings"]
    assert "f1 prompt default, by likelihood" in words
    assert "After stage mrpc base" in words


def test_a_reading_names_the_choice_of_each_task(make_run: MakeRun) -> None:
    run_dir = make_run()
    results = json.loads((run_dir / "results.json").read_text())
    results["readings"][1] |= {
        "metric": {"mrpc": "f1", "cola": "matthews"},
        "prompt": {"mrpc": "a", "cola": "b"},
        "missing": [{"stage": "00-base", "task": "cola", "reason": "Not asked."}],
    }
    (run_dir / "results.json").write_text(json.dumps(results))
    words = read(run_dir).sections["Further readings"]
    assert "mrpc: f1, cola: matthews prompt mrpc: a, cola: b" in words
    assert "cola after 00-base: Not asked." in words


def test_missing_cells_are_marked_and_explained(make_run: MakeRun) -> None:
    page = read(make_run(missing=[(2, "sst2"), (4, "mnli")]))
    assert page.sections["Scores after every stage"].count("missing") == 2
    assert "sst2 after 02-mrpc : The stage's weights were no longer on disk" in page.sections["Missing cells"]
    assert "learned last, ends at" not in page.sections[""]


def test_the_matrix_can_be_copied_and_the_page_says_when_it_was_made(make_run: MakeRun) -> None:
    run_dir = make_run()
    assert "Finished" not in read(run_dir).sections[""], "no event says that it has"
    event = {"time": "2026-02-03T04:05:06+00:00", "event": "finished"}
    (run_dir / "events.jsonl").write_text(f'{{"event": "started"}}\n{json.dumps(event)}\n', encoding="utf-8")
    page = write_report(run_dir).read_text(encoding="utf-8")
    assert "2026-02-03 04:05 UTC" in page
    results = json.loads((run_dir / "results.json").read_text())
    as_csv, as_markdown = re.findall(r'<pre class="copied"[^>]*>(.*?)</pre>', page, re.DOTALL)
    header, *rows = as_csv.strip().splitlines()
    assert header == ",".join(["stage", *results["tasks"]])
    assert len(rows) == len(results["stages"])
    assert [float(cell) for cell in rows[-1].split(",")[1:] if cell] == pytest.approx(
        [cell for cell in results["matrix"][-1] if cell is not None], abs=1e-9
    )
    assert as_markdown.count("\n") == len(rows) + 1
    assert f"{results['matrix'][0][0]:.3f}" in as_markdown.splitlines()[2]


def test_settings_are_there(make_run: MakeRun) -> None:
    words = read(make_run()).sections["Settings"]
    for word in (
        "model: base-4m",
        "torch 2.13.0",
        "cores 2",
        "learning_rate 0.0002",
        "without_sharing 1,234,567",
        "train_s 12.500, 12.500",
    ):
        assert word in words


def test_nothing_is_asked_for_from_outside(make_run: MakeRun) -> None:
    html = write_report(make_run()).read_text(encoding="utf-8")
    page = Page(html)
    assert "script" not in {tag for tag, _ in page.tags}
    asked = [
        attrs[name]
        for _, attrs in page.tags
        for name in ("src", "href", "srcset", "data", "action")
        if name in attrs
    ]
    assert asked == ["data:,"]
    assert "://" not in html
    assert "@import" not in html
    assert "url(" not in html
    assert "default-src 'none'" in html


def test_texts_names_and_settings_are_escaped(make_run: MakeRun) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'>"
    run_dir = make_run(text=evil, results_only={"model": evil, "method": evil, "adapter": evil})
    (run_dir / "config.yaml").write_text(f"model: {evil}")
    (run_dir / "environment.json").write_text(json.dumps({evil: {evil: evil}}))
    results = json.loads((run_dir / "results.json").read_text())
    renamed = json.loads(json.dumps(results).replace('"rte"', json.dumps(evil)))
    renamed["readings"][0]["missing"] = [{"stage": "00-base", "task": evil, "reason": evil}]
    (run_dir / "results.json").write_text(json.dumps(renamed))
    page = read(run_dir)
    assert not {"script", "img"} & {tag for tag, _ in page.tags}
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    assert evil in page.sections["Examples that were lost"]


def test_a_task_named_like_markup_is_escaped(make_run: MakeRun) -> None:
    page = read(make_run(tasks=["<b>bold<img>", "b&w"]))
    assert not {"b", "img"} & {tag for tag, _ in page.tags}
    assert "<b>bold<img>" in page.sections["Scores over the stages"]


def test_joint_has_one_stage_and_nothing_to_forget(make_run: MakeRun) -> None:
    page = read(make_run("joint"))
    assert "Trained on sst2, mrpc, cola and mnli at once" in page.sections[""]
    assert "sst2, mrpc, cola, mnli" in page.sections["Scores after every stage"]
    assert "Examples that were lost" not in page.sections
    assert len(page.of("td", "own")) == 4


def test_single_draws_no_lines(make_run: MakeRun) -> None:
    page = read(make_run("single"))
    assert "from the base model, base-4m learned" in page.sections[""]
    assert "Every stage started from the base model" in page.sections["Scores over the stages"]
    assert not [attrs for attrs in page.of("polyline", "line") if "loss" not in attrs["class"]]
    assert not page.of("span", "since")


def test_sixteen_tasks_fold_all_but_the_worst_examples(make_run: MakeRun) -> None:
    page = read(make_run(tasks=[f"task-{i}" for i in range(16)], n=80))
    assert len(page.of("svg", "curve")) == 16
    assert len(page.of("td", "own")) == 16
    assert ["open" in attrs for attrs in page.of("details", "loss")] == [True, True, *[False] * 13]


def test_a_loss_gets_a_scale_of_its_own_and_leads_where_it_rose(make_run: MakeRun) -> None:
    page = read(make_run(texts=["wiki"]))
    head = page.sections[""].replace("\N{NO-BREAK SPACE}", " ")
    assert re.search(
        r"base-4m lost wiki \(perplexity \d\d\.\d → 1,\d{3}, \+(3\.9|4\.0)\d\d nats per token", head
    )
    scores = page.sections["Scores after every stage"]
    assert "loss, nats per token, lower is better" in scores
    assert re.search(r"[67]\.\d{3} 6\.\d{3}–7\.\d{3}", scores), "the interval is turned with the score"
    assert "−7." not in scores
    words = page.sections["Lost, kept and gained"].replace("\N{NO-BREAK SPACE}", " ")
    assert re.search(r"wiki 400 examples margin 0\.05 nats per token .*forgotten perplexity", words)
    assert len(page.of("svg", "curve")) == 5
    lost = page.sections["Examples that were lost"]
    assert re.search(r"wiki since the base model: 400 of 400 less likely, 0 likelier", lost)
    assert re.search(r"Then 2\.\d{3} nats per token Now 7\.\d{3} nats per token", lost)


def test_the_oldest_file_that_is_legal_makes_a_report(make_run: MakeRun) -> None:
    run_dir = make_run()
    old = json.loads((run_dir / "results.json").read_text())
    for row in old["stages"]:
        del row["follows"]
    kept = {key: old[key] for key in ("version", "tasks", "stages", "matrix", "metrics")} | {"summary": {}}
    (run_dir / "results.json").write_text(json.dumps(kept))
    for name in ("config.yaml", "environment.json", "timing.json"):
        (run_dir / name).unlink()
    for path in [*run_dir.glob("stages/*/predictions.parquet"), *run_dir.glob("stages/*/training.jsonl")]:
        path.unlink()
    page = read(run_dir)
    assert "not judged: this results.json has no verdicts" in page.sections[""]
    assert "older than verdicts" in page.sections["Lost, kept and gained"]
    assert "Training loss" not in page.sections


def test_a_run_that_is_still_going_has_a_report(make_run: MakeRun) -> None:
    run_dir = make_run()
    results = json.loads((run_dir / "results.json").read_text())
    results["intervals"]["matrix"] = results["intervals"]["matrix"][:3]
    results |= {"matrix": results["matrix"][:3], "summary": {}, "significance": {}, "readings": []}
    (run_dir / "results.json").write_text(json.dumps(results))
    with (run_dir / "stages" / "02-mrpc" / "training.jsonl").open("a") as log:
        log.write('{"step": 9999, "lo')
    page = read(run_dir)
    assert "3 of 5 stages are done" in page.sections[""]
    assert "still to come" in page.sections["Lost, kept and gained"]
    assert "missing" not in page.sections["Scores after every stage"]


def test_the_same_run_gives_the_same_bytes_and_leaves_nothing_aside(make_run: MakeRun) -> None:
    run_dir = make_run()
    before = sorted(path.name for path in run_dir.iterdir())
    first = write_report(run_dir).read_bytes()
    assert write_report(run_dir).read_bytes() == first
    assert sorted(path.name for path in run_dir.iterdir()) == sorted([*before, "report.html"])


def test_a_folder_that_is_no_run_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="give the directory of a run"):
        write_report(tmp_path)
    assert list(tmp_path.iterdir()) == []
