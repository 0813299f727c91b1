"""Free answers through a whole run: how they are written, read and kept."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import forgetmenot
from forgetmenot.config import read_resolved
from forgetmenot.engine.generate import Writer
from forgetmenot.errors import UserError
from forgetmenot.metrics import measure
from forgetmenot.runs.api import Run

Go = Callable[..., Run]
Make = Callable[..., Path]
Same = Callable[[Run, Run], None]

PROMPTS = {"default": {"template": "Say: {{ word }}\nReply:", "keep": "end", "cut_answer": True}}
ROWS = [
    {"word": f"w{k} 你好 grün " + "x " * (40 * (k % 2)), "reply": "It is\nAnswer: one."} for k in range(16)
]


@pytest.fixture
def task(make_task: Make) -> str:
    """Answers with a mark before what is read from them; every second prompt is too long."""
    generation = {"max_new_tokens": 12, "stop": ["."], "extract": ["after-answer", "strip"]}
    options: dict[str, Any] = {"target": "reply", "prompts": PROMPTS, "generation": generation}
    return str(make_task("reply", ROWS, ROWS[:9], metric="edit_similarity", **options))


SETTINGS = {"training.epochs": 6, "training.max_length": 64, "evaluation.generation.margins": True}


def test_answers_are_read_by_the_tasks_rules_as_gold_is(go: Go, task: str) -> None:
    run = go("one", {"tasks": task, **SETTINGS})
    rows = run.predictions(1).to_dict("records")
    assert {row["gold"] for row in rows} == {"one."}
    for row in rows:
        assert "." not in row["generated"]
        assert 1 <= len(row["margins"]) <= 12
        assert row["predicted"] == row["generated"].split("Answer:")[-1].strip()
    wanted = measure(
        "edit_similarity", [row["gold"] for row in rows], [row["predicted"] for row in rows]
    ).value
    assert run.results["matrix"][1] == [pytest.approx(wanted)]
    assert run.results["readings"][0]["generation"]["reply"] == {
        "max_new_tokens": 12,
        "stop": ["."],
        "temperature": 0.0,
        "top_k": 0,
        "top_p": 1.0,
        "extract": ["after-answer", "strip"],
    }
    truncated = run.results["readings"][0]["truncated"]["reply"]
    assert truncated["examples"] == 4
    assert truncated["tokens"] > 0


def test_sari_reads_the_field_that_was_rewritten(go: Go, make_task: Make) -> None:
    rows = [{"word": f"the long word {k}", "reply": f"word {k}"} for k in range(16)]
    task = make_task(
        "plain",
        rows,
        rows[:6],
        target="reply",
        metric="sari",
        source="word",
        prompts={"default": {"template": "{{ word }}:"}},
    )
    run = go("one", {"tasks": str(task)})
    rows_ = run.predictions(1).to_dict("records")
    gold = [(row["word"], row["reply"]) for row in rows[:6]]
    assert run.results["matrix"][1] == [
        pytest.approx(measure("sari", gold, [r["predicted"] for r in rows_]).value)
    ]


def test_an_interrupted_evaluation_writes_no_finished_answer_again(
    go: Go, task: str, same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches of one; the run dies twice while it scores the base, once while it scores the stage."""
    settings = {"tasks": task, **SETTINGS, "evaluation.generation.batch_tokens": 1}
    whole = go("whole", settings)
    own = Writer._write
    written: list[tuple[int, ...]] = []

    def write(self: Writer, batch: Any, *others: Any) -> Any:
        if len(batch) > 1:  # the guard's own
            return own(self, batch, *others)
        if len(written) in deaths:
            deaths.remove(len(written))
            raise RuntimeError("killed")
        written.append(tuple(batch))
        return own(self, batch, *others)

    monkeypatch.setattr(Writer, "_write", write)
    deaths = [2, 5, 12]
    for _ in range(3):
        with pytest.raises(RuntimeError, match="killed"):
            go("killed", settings)
        *_, left = sorted((whole.path.parent / "killed" / "stages").glob(".*.answers.jsonl"))
        with left.open("a") as stream:
            stream.write('["torn off in the mid')
    killed = go("killed", settings)
    assert len(written) == 2 * 9
    assert sorted(written[:9]) == sorted(written[9:]) == [(k,) for k in range(9)]
    same(whole, killed)
    assert not list(killed.path.glob("stages/.*"))


def test_answers_of_other_weights_are_not_taken_up(
    go: Go, task: str, same: Same, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"tasks": task, **SETTINGS, "evaluation.generation.batch_tokens": 1}
    whole = go("whole", settings)
    monkeypatch.setattr(forgetmenot.runs.loop, "write_cost", lambda *_: 1 / 0)  # dies when all are written
    with pytest.raises(ZeroDivisionError):
        go("killed", settings)
    monkeypatch.undo()
    (left,) = (whole.path.parent / "killed" / "stages").glob(".*.answers.jsonl")
    left.rename(left.with_name(".01-reply.answers.jsonl"))  # the base's answers are not the stage's
    same(whole, go("killed", settings))


@pytest.mark.parametrize(
    "damage", [b'["key", [["score-0", "another answer", [1], []]]]\nno JSON\n\xff\n', None]
)
def test_a_damaged_log_of_answers_is_said_and_changes_nothing(
    go: Go,
    task: str,
    same: Same,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    damage: bytes | None,
) -> None:
    settings = {"tasks": task, **SETTINGS, "evaluation.generation.batch_tokens": 1}
    whole = go("whole", settings)
    monkeypatch.setattr(forgetmenot.runs.loop, "write_cost", lambda *_: 1 / 0)  # dies when all are written
    with pytest.raises(ZeroDivisionError):
        go("killed", settings)
    monkeypatch.undo()
    (log,) = (whole.path.parent / "killed" / "stages").glob(".*.answers.jsonl")
    content = bytearray(log.read_bytes())
    log.unlink()
    if damage is None:
        log.mkdir()
    else:
        content[len(content) // 2] ^= 4
        log.write_bytes(damage + content)
    config = read_resolved(log.parent.parent / "config.yaml")
    same(whole, forgetmenot.run(config, console=Console(width=10_000)))
    said = "was a folder where a log belongs" if damage is None else "lines are damaged and dropped"
    assert f"{log.name}" in (out := capsys.readouterr().out)
    assert said in out
    assert not list(log.parent.glob(".*"))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"evaluation.generation.top_k": 5}, "no effect at temperature 0"),
        ({"evaluation.generation.backend": "vllm"}, "needs a GPU"),
        ({"evaluation.generation.max_tokens": 5}, "Did you mean 'max_new_tokens'"),
    ],
)
def test_settings_that_do_nothing_are_refused(go: Go, settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        go("one", settings)


def test_drawn_answers_are_the_same_in_every_batch(go: Go, task: str) -> None:
    drawn = {"tasks": task, **SETTINGS, "evaluation.generation.temperature": 1.0}
    one = go("one", drawn).predictions(0)
    other = go("other", {**drawn, "evaluation.generation.batch_tokens": 1}).predictions(0)
    greedy = go("greedy", {"tasks": task, **SETTINGS}).predictions(0)
    assert list(one["generated"]) == list(other["generated"])
    assert list(one["generated"]) != list(greedy["generated"])
