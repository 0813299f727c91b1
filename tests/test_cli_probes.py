"""Probes on the command line: listed, and taken of the saved stages of a run."""

import json
from pathlib import Path

import pytest

from forgetmenot.cli import main


def fmn(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capfd.readouterr()
    with pytest.raises(SystemExit) as exit:
        main(arguments)
    assert isinstance(exit.value.code, int)
    return exit.value.code, *capfd.readouterr()


def test_probes_are_listed(capfd: pytest.CaptureFixture[str]) -> None:
    status, said, _ = fmn(capfd, "list", "probes")
    assert status == 0
    first = {line.split()[0] for line in said.splitlines() if line.strip()}
    assert first >= {"general", "instruction-following", "safety", "layers", "embeddings"}


def test_score_measures_saved_stages(
    here: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    rows = [{"prompt": f"Word: {word}"} for word in ("rose", "tabby", "sea", "hound")]
    Path("prompts.json").write_text(json.dumps(rows))
    status, said, _ = fmn(capfd, "score", "done", "--probes", "[{name: layers, prompts: prompts.json}]")
    assert status == 0
    assert "layers: prompts, 4 inputs" in said
    [path] = (here / "done" / "readings").glob("probes-layers-*.json")
    assert f"Reading: done/readings/{path.name}" in said
    found = json.loads(path.read_text())["layers"]
    assert found["parts"] == ["layer 1", "layer 2"]
    assert found["values"][0] == pytest.approx([1, 1])
    assert found["values"][-1][-1] < 1
    assert found["delta"] is None


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--probes", "layer"), "there is no probe 'layer'. Did you mean 'layers'?"),
        (("--probes", "layers", "--prompt", "terse"), "--probes: run two commands"),
        (
            ("--probes", "[{name: layers, prompts: self-instruct}]"),
            "set data_dir to one that has trace/HHH/helpful/self-instruct",
        ),
    ],
)
def test_what_does_not_fit_is_said(
    arguments: tuple[str, ...], sentence: str, here: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    status, _, said = fmn(capfd, "score", "done", *arguments)
    assert status == 2
    assert sentence in said
