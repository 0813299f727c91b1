"""The command line as a user sees it: what each verb prints, leaves on disk and ends with."""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import forgetmenot
import forgetmenot.__main__ as entry
from forgetmenot.cli import main
from forgetmenot.config import BUNDLED_JOB, RunConfig, load_config
from forgetmenot.models.settings import ModelSettings
from forgetmenot.report.screen import Screen
from forgetmenot.report.terminal import LiveTable
from forgetmenot.runs.display import Display

VERBS = ("run", "study", "compare", "score", "prompts", "receipts", "export", "report", "watch", "list")
SETTINGS = ("--set", "training.limit=8", "--set", "evaluation.limit=4")
TASKS = "tasks/animal.yaml,tasks/colour.yaml"
RUN = ("run", "--model", "model", "--tasks", TASKS, *SETTINGS)

Fmn = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fmn(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Fmn:
    """Run the command line in this process, on a screen of 100 columns: its status, stdout and stderr."""
    monkeypatch.setenv("COLUMNS", "100")

    def fmn(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        with pytest.raises(SystemExit) as exit:
            main(arguments)
        assert isinstance(exit.value.code, int)
        return exit.value.code, *capfd.readouterr()

    return fmn


def lines_of(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def results(run_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run_dir / "results.json").read_text())
    return found


# What there is to type


def test_help_names_every_verb(fmn: Fmn) -> None:
    status, said, _ = fmn("--help")
    assert status == 0
    assert {line[0] for line in lines_of(said) if line} >= set(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb: str, fmn: Fmn) -> None:
    status, said, complaint = fmn(verb, "--help")
    assert (status, complaint) == (0, "")
    assert said.startswith(f"usage: forgetmenot {verb}")


def test_help_of_run_names_its_options(fmn: Fmn) -> None:
    _, said, _ = fmn("run", "--help")
    words = said.replace(",", " ").split()
    options = ["model", "tasks", "method", "prompt", "data-dir", "seed", "output", "fresh", "set"]
    assert {f"--{option}" for option in options} <= set(words)


def test_the_version(fmn: Fmn) -> None:
    assert fmn("--version") == (0, f"{forgetmenot.__version__}\n", "")


def test_both_commands_are_installed() -> None:
    installed = {one.name: one for one in entry_points(group="console_scripts")}
    assert installed["forgetmenot"].load() is entry.main
    assert installed["fmn"].load() is entry.main


def test_help_needs_no_torch() -> None:
    """Torch takes seconds, and who asks for help has none to spare."""
    program = (
        "import runpy, sys\n"
        "try: runpy.run_module('forgetmenot', run_name='__main__')\n"
        "except SystemExit as exit: sys.exit(exit.code or 'torch' in sys.modules)\n"
    )
    command = [sys.executable, "-c", program, "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout.startswith("usage: forgetmenot")


@pytest.mark.parametrize(
    ("what", "name", "words"),
    [
        ("tasks", "sst2", "SST-2"),
        ("tasks", "qs-sentiment", "Bundled"),
        ("suites", "glue4", "sst2, mrpc, cola, mnli"),
        ("methods", "joint", "upper bound"),
        ("models", "quickstart", "Bundled"),
        ("prompts", "sst2", "default"),
    ],
)
def test_list_shows_what_has_a_name(what: str, name: str, words: str, fmn: Fmn) -> None:
    status, said, complaint = fmn("list", what)
    assert (status, complaint) == (0, "")
    [line] = [line for line in said.splitlines() if line.split()[0] == name]
    assert words in line


def test_cache_shows_what_is_kept_and_clears_it(
    fmn: Fmn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path))
    assert lines_of(fmn("cache")[1])[1:3] == [
        ["encoded", "examples", "0", "0.0"],
        ["states", "of", "frozen", "layers", "0", "0.0"],
    ]
    (tmp_path / "frozen-layers").mkdir()
    (tmp_path / "frozen-layers" / "a.states").write_bytes(b" " * 2_000_000)
    (tmp_path / "frozen-layers" / ".c.states.77.writing").write_bytes(b" " * 1_000_000)  # of a killed run
    (tmp_path / "b.npz").write_bytes(b" " * 500_000)
    for arguments in (("cache",), ("cache", "--clear")):
        status, said, complaint = fmn(*arguments)
        assert (status, complaint) == (0, "")
        assert lines_of(said)[1:3] == [
            ["encoded", "examples", "1", "0.5"],
            ["states", "of", "frozen", "layers", "2", "3.0"],
        ]
        assert str(tmp_path) in said.replace("\n", "")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_cache_says_what_it_may_not_remove(fmn: Fmn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path))
    (tmp_path / "b.npz").write_bytes(b" ")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "unlink", refuse)
    status, _, complaint = fmn("cache", "--clear")
    assert status == 2
    assert "b.npz cannot be removed (Permission denied)" in complaint.replace("\n", "")


# What the verbs do


def test_run_prints_the_matrix_and_leaves_a_report(here: Path, fmn: Fmn) -> None:
    status, said, complaint = fmn(*RUN, "--output", "out")
    assert (status, complaint) == (0, "")
    rows = {line[0]: line[1:] for line in lines_of(said) if line}
    for stage, row in zip(results(here / "out")["stages"], results(here / "out")["matrix"], strict=True):
        assert f"{row[0]:.3f}" in rows[stage["name"]]
    assert said.endswith("\nReport: out/report.html\n")
    assert (here / "out/report.html").is_file()


@pytest.mark.parametrize("name", ["run[bold]x", "run[/v2]", "run:smile:"])
def test_square_brackets_and_colons_in_a_path_are_printed_as_they_stand(
    name: str, here: Path, fmn: Fmn
) -> None:
    status, said, complaint = fmn(*RUN, "--output", name)
    assert (status, complaint) == (0, "")
    assert said.splitlines()[1] == f"Directory: {name}"
    assert said.endswith(f"\nReport: {name}/report.html\n")
    for verb in (("report", name), ("run", *RUN[1:], "--output", f"{name}2", "--preview")):
        status, said, complaint = fmn(*verb)
        assert (status, complaint) == (0, "")
        assert name in said


def test_a_bar_and_a_table_write_brackets_as_they_stand() -> None:
    screen = io.StringIO()
    console = Screen()
    console.file = screen
    table = LiveTable(["a[/x]"], ["00-base"], {"a[/x]": "accuracy"})
    with Display(console) as display, display.progress("01-[bold]x: [/training]", 1) as advance:
        advance(1, note="[/note]")
        console.print(display.bars)
        console.print(table)
    for said in ("01-[bold]x: [/training]", "[/note]", "a[/x]"):
        assert said in screen.getvalue()


def test_a_closed_screen_is_no_fault() -> None:
    command = f"{sys.executable} -m forgetmenot list models >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0


@pytest.mark.parametrize("encoding", ["ascii", "iso8859-15"])
def test_a_screen_without_our_letters_gets_question_marks(encoding: str) -> None:
    command = [sys.executable, "-m", "forgetmenot", "list", "models"]
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    ended = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert (ended.returncode, ended.stderr) == (0, b"")
    assert ended.stdout.splitlines()[-1].startswith(b"? ")


def test_a_run_of_a_user_without_a_home_keeps_no_cache_and_says_so(
    here: Path, fmn: Fmn, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("FORGETMENOT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "")
    status, said, complaint = fmn(*RUN, "--output", "out")
    assert (status, complaint) == (0, "")
    assert "FORGETMENOT_CACHE" in said
    assert not (here / ".cache").exists()


def test_run_says_first_what_it_does_where_and_on_what(here: Path, fmn: Fmn) -> None:
    _, said, _ = fmn(*RUN, "--output", "out")
    first = said.splitlines()
    assert first[0].endswith("learns tasks/animal.yaml, tasks/colour.yaml by sequential (LoRA, rank 8)")
    assert first[1] == "Directory: out"
    device = next(line for line in first if line.startswith("Device: "))
    for part in ("precision fp32 (auto)", "weights float32 (auto)", "learning rate 0.0128 (auto)"):
        assert part in device
    assert first.index(device) < next(k for k, line in enumerate(first) if line.startswith("00-base"))
    _, said, _ = fmn(*RUN, "--output", "set", "--set", "training.learning_rate=0.01")
    assert "learning rate 0.01\n" in said


def test_run_does_what_the_python_interface_does(here: Path, fmn: Fmn) -> None:
    assert fmn(*RUN, "--output", "out")[0] == 0
    assert (here / "out/results.json").read_bytes() == (here / "done/results.json").read_bytes()


def test_a_terminal_gets_its_cursor_back_and_the_finished_matrix(
    here: Path, fmn: Fmn, monkeypatch: pytest.MonkeyPatch
) -> None:
    hide, show = "\x1b[?25l", "\x1b[?25h"
    monkeypatch.setenv("FORCE_COLOR", "1")
    status, said, _ = fmn(*RUN, "--output", "out")
    assert status == 0
    while_at_work, _, afterwards = said.rpartition(show)
    assert while_at_work.startswith(hide)
    assert "00-base" in while_at_work
    assert "02-colour" in afterwards
    assert hide not in afterwards


def test_report_prints_the_matrix_again(here: Path, fmn: Fmn) -> None:
    (here / "done/report.html").unlink()
    status, said, complaint = fmn("report", "done")
    assert (status, complaint) == (0, "")
    assert {"00-base", "01-animal", "02-colour"} <= {line[0] for line in lines_of(said) if line}
    assert said.endswith("\nReport: done/report.html\n")
    assert (here / "done/report.html").is_file()


def test_score_reads_the_saved_stages_anew(here: Path, fmn: Fmn) -> None:
    status, said, complaint = fmn("score", "done")
    assert (status, complaint) == (0, "")
    printed = {line[0]: line[1:] for line in lines_of(said) if line}
    assert printed["stage"] == ["animal", "colour"]
    found = results(here / "done")
    for stage, row in zip(found["stages"], found["matrix"], strict=True):
        assert printed[stage["name"]] == [f"{value:.3f}" for value in row]
    assert (here / printed["Reading:"][0]).is_file()


def test_score_puts_another_prompt_and_another_task(here: Path, fmn: Fmn) -> None:
    status, said, _ = fmn(
        "score", "done", "--prompt", "terse", "--tasks", "tasks/size.yaml, tasks/colour.yaml"
    )
    assert status == 0
    printed = {line[0]: line[1:] for line in lines_of(said) if line}
    assert printed["stage"] == ["size", "colour"]
    reading = json.loads((here / printed["Reading:"][0]).read_text())
    assert reading["prompt"] == {"size": "terse", "colour": "terse"}


def test_export_gives_a_model_with_its_tokenizer(here: Path, fmn: Fmn) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    status, said, wrong = fmn("export", "done", "--stage", "2", "new")
    assert (status, wrong) == (0, "")
    assert said.startswith("Exported: new. Its log-likelihoods of ")
    model, tokenizer = AutoModelForCausalLM.from_pretrained("new"), AutoTokenizer.from_pretrained("new")
    read = tokenizer("Word: puppy\nKind:", return_tensors="pt")
    assert model(**read).logits.shape[-1] == len(tokenizer)


# What beats what


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The configs that `fmn run` would have run."""
    taken: list[RunConfig] = []

    def take(config: RunConfig, **_: Any) -> Any:
        taken.append(config)
        return SimpleNamespace(print=lambda console: None, path=Path("nowhere"))

    monkeypatch.setattr("forgetmenot.runs.api.run", take)
    return taken


def test_set_beats_options_beat_the_file_beats_the_default(
    tmp_path: Path, fmn: Fmn, configs: list[RunConfig]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("model: mine\nseed: 1\nmethod: joint\ntraining: {epochs: 5, batch_size: 7}\n")
    options = ("--seed", "2", "--tasks", "sst2, cola", "--method", "single")
    settings = ("training.epochs=6", "seed=3", "model.dtype=bf16", "evaluation.also_score=rte, wnli")
    typed = [part for setting in settings for part in ("--set", setting)]
    assert fmn("run", str(file), *options, *typed)[0] == 0
    [config] = configs
    assert (config.model.name, config.model.dtype) == ("mine", "bf16")
    assert config.seed == 3
    assert config.method.name == "single"
    assert (config.tasks, config.evaluation.also_score) == (("sst2", "cola"), ("rte", "wnli"))
    assert (config.training.epochs, config.training.batch_size) == (6, 7)
    assert config.training.warmup_ratio == RunConfig().training.warmup_ratio


def test_watch_is_the_friendly_name_of_what_is_only_scored(
    tmp_path: Path, fmn: Fmn, configs: list[RunConfig]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("evaluation: {also_score: [wnli], limit: 9}\n")
    assert fmn("run", str(file), "--watch", "sst2, arc_easy")[0] == 0
    assert fmn("run", "--watch", "rte")[0] == 0
    [typed, alone] = configs
    assert (typed.evaluation.also_score, typed.evaluation.limit) == (("sst2", "arc_easy"), 9)
    assert (alone.evaluation.also_score, alone.tasks) == (("rte",), load_config(BUNDLED_JOB).tasks)


def test_nothing_typed_is_the_bundled_job(fmn: Fmn, configs: list[RunConfig]) -> None:
    assert fmn("run")[0] == 0
    [config] = configs
    assert config == load_config(BUNDLED_JOB)
    assert (config.model.name, config.tasks) == ("quickstart", ("quickstart",))


def test_a_model_alone_is_trained_with_the_defaults(fmn: Fmn, configs: list[RunConfig]) -> None:
    assert fmn("run", "--model", "gpt2")[0] == 0
    assert configs == [RunConfig(model=ModelSettings(name="gpt2"))]


# How it ends


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], object]], None]:
    """Put something in the place of what `fmn report` does."""

    def put(action: Callable[[], object]) -> None:
        monkeypatch.setattr("forgetmenot.runs.api.Run", lambda path: action())

    return put


def raising(error: BaseException) -> Callable[[], object]:
    def action() -> object:
        raise error

    return action


def test_a_bug_leaves_its_trace_in_a_file(
    failing: Any, fmn: Fmn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    failing(raising(ZeroDivisionError("a slip of ours")))
    status, said, complaint = fmn("report", "done")
    assert (status, said) == (70, "")
    [trace] = tmp_path.glob("forgetmenot-*.log")
    assert complaint.startswith("forgetmenot: internal error; ")
    assert complaint.endswith(f"{trace}\n")
    assert complaint.count("\n") == 1
    assert "ZeroDivisionError: a slip of ours" in trace.read_text()


def test_an_interrupt_ends_with_130(failing: Any, fmn: Fmn) -> None:
    failing(lambda: os.kill(os.getpid(), signal.SIGINT))
    status, _, complaint = fmn("report", "done")
    assert status == 130
    assert "interrupted. Go on with: fmn report done" in complaint


def test_a_request_to_end_ends_with_143(failing: Any, fmn: Fmn) -> None:
    failing(lambda: os.kill(os.getpid(), signal.SIGTERM))
    status, _, complaint = fmn("report", "done")
    assert status == 143
    assert "terminated. Go on with: fmn report done" in complaint


def test_what_goes_on_does_not_begin_with_deleting(
    fmn: Fmn, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The printed command is without --fresh, and an error that says so is told of it."""
    kept = raising(forgetmenot.UserError("What is finished is kept; run the same command again to go on."))
    for fail, words in (
        (lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM), "run --output x (--fresh would start over.)"),
        (lambda *_, **__: kept(), "to go on. Leave out --fresh, which would start over."),
    ):
        monkeypatch.setattr("forgetmenot.runs.api.run", fail)
        _, _, complaint = fmn("run", "--fresh", "--output", "x")
        assert complaint.endswith(f"{words}\n")


@pytest.mark.parametrize("arguments", [("list", "tasks"), ("--version",)])
def test_a_reader_that_has_gone_is_no_bug(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """As in `fmn list tasks | head -1`: what Rich prints, and what stays in the buffer of stdout."""
    command = [sys.executable, "-m", "forgetmenot", *arguments]
    environment = {**os.environ, "TMPDIR": str(tmp_path), "PYTHONUNBUFFERED": ""}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 128 + signal.SIGPIPE
    assert not list(tmp_path.glob("forgetmenot-*.log"))


def test_an_argument_that_a_verb_does_not_know_points_to_its_own_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["score", "run", "--set", "seed=1"])
    assert capsys.readouterr().err == (
        "forgetmenot: score: unrecognized arguments: --set seed=1. `forgetmenot score --help` explains.\n"
    )
