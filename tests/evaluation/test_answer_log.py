"""A log of answers that was damaged loses the damaged lines alone, and says so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from forgetmenot.engine.decoding import Answer
from forgetmenot.engine.pack import arrange
from forgetmenot.evaluation.answer_log import AnswerLog
from forgetmenot.prompting import TokenSequence
from forgetmenot.record.files import append_line

LINES: list[Any] = [
    ["key", [["score-1", "a café", [3, 4], [0.5, 1.25]], ["score-2", "sea\tand sky", [5], []]]],
    ["key", [["score-3", "rose", [7, 8, 9], []]]],
    ["other", [["score-1", "", [], []]]],
]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / ".01-a.answers.jsonl"
    for line in LINES:
        append_line(path, line, checked=True)
    return path


def opened(path: Path) -> AnswerLog:
    return AnswerLog(path.with_name("01-a"))


def read(path: Path) -> dict[tuple[str, str], Answer]:
    return {
        (key, name): Answer(text, tuple(tokens), tuple(margins))
        for key, rows in opened(path).kept.items()
        for name, text, tokens, margins in rows
    }


def test_what_was_written_is_read(log: Path) -> None:
    assert read(log)["key", "score-2"] == Answer("sea\tand sky", (5,), ())
    assert len(read(log)) == 4
    assert opened(log).said == []


def test_lines_without_a_checksum_are_those_of_an_older_version(log: Path) -> None:
    whole = read(log)
    log.write_text("".join(json.dumps(line) + "\n" for line in LINES))
    assert read(log) == whole


def test_no_flipped_bit_gives_another_answer(log: Path) -> None:
    content, whole = log.read_bytes(), read(log)
    for place in range(len(content)):
        log.write_bytes(content[:place] + bytes([content[place] ^ 1 << place % 8]) + content[place + 1 :])
        left = read(log)
        assert left.items() < whole.items(), place
        assert len(left) >= len(whole) - 3  # two lines, where their break was hit
        assert read(log) == left


NO_LINES = (
    *(b"garbage", b"\xff\xfe\x00", b"{}", b"[]", b"3", b"null", b"", b"[" * 9999),
    *(b'["key"]', b'["key", 3]', b'["key", [["a"]]]', b'["key", [["score-1", "x", 3, 4]]]'),
    b'{"key": [], "rows": []}',
)


@pytest.mark.parametrize("line", NO_LINES)
def test_a_line_that_is_none_is_dropped_and_said(log: Path, line: bytes) -> None:
    whole, content = read(log), log.read_bytes()
    first, rest = content.split(b"\n", 1)
    log.write_bytes(first + b"\n" + line + b"\n" + rest)
    found = opened(log)
    assert read(log) == whole
    assert found.said == [f"{log}: 1 of 4 lines are damaged and dropped; what they held is computed again."]
    assert log.read_bytes() == content


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: path.symlink_to(path.parent)])
def test_a_folder_in_its_place_is_removed(log: Path, make: Callable[[Path], None]) -> None:
    log.unlink()
    make(log)
    found = opened(log)
    assert found.kept == {}
    assert found.said == [f"{log} was a folder where a log belongs, and is removed."]
    append_line(log, LINES[0], checked=True)
    assert len(read(log)) == 2


@pytest.mark.parametrize("row", [[0, "x"], ["a", [1.5]], [0, [[1.5], 2]]])
def test_what_a_pack_gave_is_numbers(log: Path, row: list[Any]) -> None:
    append_line(log, ["packs", [[0, [-1.25, -0.5]]]], checked=True)
    append_line(log, ["packs", [row]], checked=True)
    found = opened(log)
    assert found.kept["packs"] == [[0, [-1.25, -0.5]]]
    assert len(found.said) == 1


def test_packs_of_the_same_tokens_in_another_tree_are_not_taken_for_one_another(
    tmp_path: Path, tiny_llama: Path
) -> None:
    """1 2 → 8 and 1 3 → 9 are three inputs and two predictions, and so are 1 2 → 8 and 1 2 3 → 9."""
    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    path = tmp_path / ".01-a.answers.jsonl"
    first, second = (
        arrange(
            [TokenSequence((1, 2, 8), 2), TokenSequence(other, len(other) - 1)], "trie", 100, continues=False
        )
        for other in ((1, 3, 9), (1, 2, 3, 9))
    )
    with opened(path).parts(model, first, greedy=False) as kept:
        kept.add(0, torch.tensor([-1.0, -2.0]))
    with opened(path).parts(model, second, greedy=False) as kept:
        assert not kept.done
    with opened(path).parts(model, first, greedy=False) as kept:
        assert kept.done.keys() == {0}
