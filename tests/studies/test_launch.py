"""What the launcher makes of several exit statuses, and of a number of processes that does not fit."""

import pytest
import torch

from forgetmenot import UserError
from forgetmenot.runs import processes


@pytest.mark.parametrize(
    ("codes", "status", "told"),
    [
        ([2, 143], 2, ""),
        ([143, 70, -15], 70, ""),
        ([-9, 143], 137, "ended by signal 9"),
        ([-15, -9], 137, "ended by signal 9"),
        ([143, -15], 143, ""),
    ],
)
def test_one_status_stands_for_all(
    capsys: pytest.CaptureFixture[str], codes: list[int], status: int, told: str
) -> None:
    assert processes._status(codes) == status
    said = capsys.readouterr().err
    assert (told in said) if told else (said == "")


def test_a_number_that_is_not_the_launchers_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    processes.check_processes(2)
    with pytest.raises(UserError, match="the launcher started 2"):
        processes.check_processes(4)


def test_there_are_no_more_processes_than_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    processes.check_processes(8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    processes.check_processes(4)
    with pytest.raises(UserError, match="this machine has 4 GPUs"):
        processes.check_processes(5)
