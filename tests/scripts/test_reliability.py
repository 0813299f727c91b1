"""The attacks of scripts.reliability: that they do hit, that they do notice, and that nothing is lost."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from scripts import reliability
from scripts.attacks import damages, disks, kills, signals
from scripts.attacks.child import End, forked, warm
from scripts.attacks.ground import MOMENTS, Case, Ground, spread
from scripts.attacks.injection import die_at
from scripts.attacks.jobs import NUMBERS
from scripts.attacks.outcome import Outcome, committed, hashes


def change(folder: Path) -> None:
    """Nine moments under a folder, and some that do not count."""
    (folder / "made").mkdir()
    (folder / "made").mkdir(exist_ok=True)  # changes nothing
    (folder.parent / "beside").write_text("")
    aside = folder / "made" / "aside"
    with aside.open("w") as stream:
        stream.write("whole")
        stream.flush()
        os.fsync(stream.fileno())
    aside.read_text()
    aside.rename(folder / "made" / "file")
    os.close(os.open(folder / "low", os.O_WRONLY | os.O_CREAT))
    (folder / "low").unlink()
    opened = os.open(folder, os.O_RDONLY)
    os.remove("made/file", dir_fd=opened)  # as shutil.rmtree does
    (folder / "made").rmdir()


THERE = [
    ("before mkdir made", []),
    ("before open made/aside", ["made"]),
    ("before fsync made/aside", ["made", "made/aside"]),
    ("before rename made/aside", ["made", "made/aside"]),
    ("after rename to made/file", ["made", "made/file"]),
    ("before open low", ["made", "made/file"]),
    ("before remove low", ["low", "made", "made/file"]),
    ("before remove made/file", ["made", "made/file"]),
    ("before rmdir made", ["made"]),
]


def in_child(work: Callable[[], None]) -> int:
    """The status of a forked child."""
    if (child := os.fork()) == 0:
        work()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("number", range(1, len(THERE) + 2))
def test_a_child_dies_at_the_change(tmp_path: Path, number: int) -> None:
    folder, log = tmp_path / "run", tmp_path / MOMENTS
    folder.mkdir()

    def work() -> None:
        die_at(number, folder, log)
        change(folder)

    status = in_child(work)
    moments = log.read_text().splitlines()
    if number > len(THERE):
        assert (status, moments) == (0, [moment for moment, _ in THERE])
        return
    assert status == -signal.SIGKILL
    assert moments == [moment for moment, _ in THERE[:number]]
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == THERE[number - 1][1]


def write_run(folder: Path, score: float = 0.5) -> None:
    stage = folder / "run" / "stages" / "00-base"
    stage.mkdir(parents=True, exist_ok=True)
    (stage / "scores.json").write_text("{}")
    (stage / "predictions.parquet").write_bytes(b"answers")
    (folder / "run" / "results.json").write_text(json.dumps({"matrix": [[score]]}))


def test_a_changed_number_is_noticed(tmp_path: Path) -> None:
    write_run(tmp_path / "one")
    write_run(tmp_path / "same")
    write_run(tmp_path / "other", 0.5000001)
    expected, outcome = hashes(tmp_path / "one", NUMBERS), Outcome()
    assert sorted(expected) == ["run/results.json", "run/stages/00-base/predictions.parquet"]
    outcome.numbers(expected, hashes(tmp_path / "same", NUMBERS), "then", resumed=True)
    assert outcome.right
    outcome.numbers(expected, hashes(tmp_path / "other", NUMBERS), "then")
    assert (outcome.lost, outcome.silent) == ([], ["then: other run/results.json"])
    (tmp_path / "same" / "run" / "results.json").unlink()
    outcome.numbers(expected, hashes(tmp_path / "same", NUMBERS), "then", resumed=True)
    assert outcome.lost == ["then: other run/results.json"]


def test_a_stage_that_was_made_anew_is_noticed(tmp_path: Path) -> None:
    write_run(tmp_path)
    before, outcome = committed(tmp_path / "run"), Outcome()
    outcome.kept(before, committed(tmp_path / "run"), "then")
    assert outcome.right
    os.utime(tmp_path / "run" / "stages" / "00-base" / "scores.json", (1, 1))
    outcome.kept(before, committed(tmp_path / "run"), "then")
    assert outcome.lost == ["then: gone or made anew 00-base"]


def test_what_is_left_half_written_is_noticed(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "run" / ".lock").touch()
    outcome = Outcome()
    outcome.swept(tmp_path / "run", "then")
    assert outcome.right
    (tmp_path / "run" / "stages" / ".01-sst2.answers.jsonl").touch()
    outcome.swept(tmp_path / "run", "then")
    assert outcome.odd == ["then: leaves stages/.01-sst2.answers.jsonl"]


SENTENCE = "forgetmenot: The disk is full.\n"
TRACE = "Traceback (most recent call last):\nKeyError: 1\n"


@pytest.mark.parametrize(
    ("status", "said", "wrong"),
    [
        (0, "", set()),
        (2, SENTENCE, set()),
        (2, "", {"odd"}),
        (2, SENTENCE + SENTENCE, {"odd"}),
        (2, "usage: forgetmenot\n", {"odd"}),
        (70, SENTENCE, {"bugs"}),
        (1, TRACE, {"odd", "tracebacks"}),
        (0, TRACE, {"tracebacks"}),
        (-9, "", {"odd"}),
    ],
)
def test_a_wrong_end_is_noticed(status: int, said: str, wrong: set[str]) -> None:
    outcome = Outcome()
    outcome.ended(End(status, said), (0, 2), "then")
    assert {kind for kind in reliability.WRONG if getattr(outcome, kind)} == wrong


@pytest.mark.parametrize("way", damages.WAYS)
def test_a_damaged_file_is_another(tmp_path: Path, way: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(range(1, 200)))
    before = hashes(tmp_path, ["*"])
    damages.WAYS[way](file)
    assert hashes(tmp_path, ["*"]) != before


def test_a_fork_gives_the_status_and_the_sentence() -> None:
    assert forked(["list", "methods"]) == End(0, "")
    end = forked(["run", "--set", "adapter.rnk=4"])
    assert end.status == 2
    assert end.said.startswith("forgetmenot: adapter.rnk: there is no such key")


def test_played_cases_are_not_played_again_and_are_counted(tmp_path: Path) -> None:
    times: list[str] = []

    def case(name: str) -> Case:
        def play() -> Outcome:
            times.append(name)
            return Outcome(bugs=["then: KeyError"] if name == "2" else [])

        return Case("kills", "ewc", name, 3, play)

    def cases() -> Iterator[list[Case]]:
        yield [case(name) for name in "123"]

    path = tmp_path / "cases.jsonl"
    assert len(list(reliability.played(cases(), 2, path))) == 2
    assert times == ["1", "3"]
    assert "| kills | ewc | 2 of 3 | 0 | 0 | 0 | 0 | 0 |" in list(reliability.table(reliability.lines(path)))
    list(reliability.played(cases(), None, path))
    assert times == ["1", "3", "2"]
    table = list(reliability.table(reliability.lines(path)))
    assert "| kills | ewc | 3 | 0 | 0 | 1 | 0 | 0 |" in table
    assert "- kills, ewc, 2: exits 70: then: KeyError" in table


def test_cases_are_evenly_spread() -> None:
    assert list(spread(range(101), 5)) == [0, 25, 50, 75, 100]
    assert list(spread(range(3), 5)) == [0, 1, 2]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    warm()
    return Ground(tmp_path_factory.mktemp("attacked"))


ATTACKS: dict[str, Callable[[Ground], Iterator[list[Case]]]] = {
    "kills": lambda ground: kills.cases(ground, ["sequential", "si"]),
    "signals": signals.cases,
    "disks": disks.cases,
    "damages": damages.cases,
}


@pytest.mark.slow
@pytest.mark.parametrize("attack", ATTACKS)
def test_nothing_is_lost_or_changed(ground: Ground, tmp_path: Path, attack: str) -> None:
    found = list(reliability.played(ATTACKS[attack](ground), 3, tmp_path / "cases.jsonl"))
    assert len(found) > 20
    for kind in ("lost", "silent", "bugs"):
        assert [line for line in found if line[kind]] == [], kind
