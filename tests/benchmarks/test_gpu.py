"""The benchmark for a GPU, on a CPU and a tiny model: each part measures, and none stops the others."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from benchmarks import gpu
from benchmarks.gpu_parts import Subject
from benchmarks.gpu_settings import read_settings
from forgetmenot.errors import UserError

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", read_settings().sizes)
def test_dimensions_are_those_of_the_published_model(size: str) -> None:
    own = read_settings().sizes[size]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**own.config))
    assert model.num_parameters() == own.parameters


def test_a_dry_run_measures_every_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("trl", reason="trl is not installed: pip install '.[bench]'")
    monkeypatch.setattr("benchmarks.timing.PRODUCT", {"cpu": 64})
    monkeypatch.setattr("benchmarks.gpu_parts.REPEATS", 1)
    document = tmp_path / "gpu.md"
    document.write_text("<!-- begin: gpu -->\n<!-- end: gpu -->\n")
    monkeypatch.setattr(gpu, "DOCUMENT", document)
    output = tmp_path / "gpu.json"
    asked = ["gpu", "--device", "cpu", "--sizes", "tiny", "--output", str(output), "--write"]
    monkeypatch.setattr(sys, "argv", asked)
    gpu.main()
    parts = json.loads(output.read_text())["sizes"]["tiny"]
    assert list(parts) == list(read_settings().shares)
    assert parts["exactness"]["kernel"] == "chunked"
    assert parts["exactness"]["log_likelihood"] < 1e-5
    for work in ("scoring", "training"):
        assert parts[work]["ours"]["positions"] < parts[work]["peer"]["positions"]
        assert parts[work]["ours"]["mfu"] > 0
    assert "Δ" in parts["training"]["peer"]["agreement"]
    assert parts["whole_run"]["paper_minutes"] > 0
    rows = [line for line in document.read_text().splitlines() if "| tiny |" in line]
    assert [row.split(" | ")[2] for row in rows] == ["scoring", "training", "whole run"]
    assert "| tiny | scoring |" in capsys.readouterr().out


def test_without_the_peers_our_side_is_measured_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("benchmarks.gpu_parts.find_spec", lambda name: None)
    monkeypatch.setattr("benchmarks.gpu_parts.REPEATS", 1)
    subject = Subject(read_settings(), "tiny", CPU, tmp_path, rate=1e9)
    found: dict[str, Any] = {}
    subject.build({}, 1)
    subject.scoring(found, 1)
    assert found["peer"] == {"skipped": "lm-eval or TRL is not installed"}
    [row, *_] = gpu.table_rows("a machine", "tiny", {"scoring": found})
    assert "lm-eval or TRL is not installed" in row


def test_a_kernel_that_is_not_exact_is_not_taken(tmp_path: Path) -> None:
    settings = read_settings()
    strict = settings.exact.model_copy(update={"log_likelihood": 1e-30})
    subject = Subject(settings.model_copy(update={"exact": strict}), "tiny", CPU, tmp_path, rate=1e9)
    subject.build({}, 1)
    with pytest.raises(UserError, match="chunked attention is not exact, and the dense mask is taken"):
        subject.exactness({}, 1)
    assert subject.attention == "dense"


def test_a_part_that_fails_or_takes_too_long_says_so_and_keeps_what_it_found() -> None:
    ours = {"rate": 5.0, "mfu": 0.5, "gib": 1.0}

    def endless(found: dict[str, Any], _: float) -> None:
        found["ours"] = ours
        while True:
            time.sleep(0.01)

    def broken(found: dict[str, Any], _: float) -> None:
        raise RuntimeError("no kernel image")

    late = gpu.attempt(endless, 0.1)
    assert (late["ours"], late["failed"]) == (ours, "TimeoutError: its 0 seconds were over")
    assert gpu.attempt(endless, 0)["failed"] == "TimeoutError: no time was left"
    assert gpu.attempt(broken, 5)["failed"] == "RuntimeError: no kernel image"
    parts = {"scoring": late, "training": gpu.attempt(broken, 5)}
    scoring, training, whole_run = gpu.table_rows("a machine", "7b", parts)
    assert (scoring[3], scoring[-1]) == ("5", "not all measured: TimeoutError: its 0 seconds were over")
    assert (training[3], training[-1]) == ("", "not all measured: RuntimeError: no kernel image")
    assert whole_run[-1] == "not all measured: the model could not be built"


def test_what_is_measured_is_written_though_the_time_is_over(tmp_path: Path) -> None:
    found = gpu.measure(read_settings(), ["tiny"], CPU, 0, tmp_path / "gpu.json")
    assert json.loads((tmp_path / "gpu.json").read_text())["sizes"] == found["sizes"]
    assert "no time was left" in found["sizes"]["tiny"]["build"]["failed"]
