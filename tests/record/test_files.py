"""Files are there whole or not at all, and a log loses at most the line that a kill cut."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from forgetmenot.errors import UserError
from forgetmenot.record.files import (
    append_line,
    folder_written_whole,
    read_lines,
    write_json,
    write_text,
    written_whole,
)


def test_what_fails_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a" / "one.txt"
    write_text(path, "before")

    def dies() -> None:
        with written_whole(path) as aside:
            aside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        dies()
    assert path.read_text() == "before"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_files_have_the_mode_that_the_umask_says(mask: int, tmp_path: Path) -> None:
    """Also those that a library writes aside for their owner alone, as safetensors does."""
    before = os.umask(mask)
    try:
        write_text(tmp_path / "text", "a")
        with written_whole(tmp_path / "weights") as aside:
            save_file({"a": np.zeros(3)}, aside)
        with folder_written_whole(tmp_path / "model") as folder:
            save_file({"a": np.zeros(3)}, folder / "weights")
            (folder / "run.sh").touch(0o700)
        assert os.umask(mask) == mask  # which nothing has changed
    finally:
        os.umask(before)
    for name in ("text", "weights", "model/weights"):
        assert (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~mask
    assert (tmp_path / "model").stat().st_mode & 0o777 == 0o777 & ~mask
    assert (tmp_path / "model" / "run.sh").stat().st_mode & 0o777 == 0o700 | (0o666 & ~mask)


def test_a_number_that_is_not_finite_is_not_written(tmp_path: Path) -> None:
    write_json(tmp_path / "one.json", {"ä": [1, None]})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "one.json", {"a": float("nan")})
    assert json.loads((tmp_path / "one.json").read_text(encoding="utf-8")) == {"ä": [1, None]}


def test_a_cut_line_is_dropped_and_the_log_goes_on(tmp_path: Path) -> None:
    log = tmp_path / "a" / "log.jsonl"
    assert read_lines(log) == []
    append_line(log, {"k": 1})
    append_line(log, ["é"])
    whole = log.read_bytes()
    for cut in range(1, 8):
        log.write_bytes(whole[:-cut])
        kept: list[object] = read_lines(log)
        assert kept == [{"k": 1}]
        append_line(log, 3)
        assert read_lines(log) == [{"k": 1}, 3]


def test_a_damaged_line_in_the_middle_is_no_cut_one(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"k": 1}\n{"k"\n3\n')
    with pytest.raises(UserError, match=r"log\.jsonl, line 2 is damaged .* remove the line"):
        read_lines(tmp_path / "log.jsonl")
