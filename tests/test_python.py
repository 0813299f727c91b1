"""The Python interface: it has whatever the command line has, and what a notebook expects."""

import inspect
from pathlib import Path

import pytest

import forgetmenot as fmn
from forgetmenot.errors import UserError
from forgetmenot.runs.api import resolve
from forgetmenot.verbs import VERBS

CALLED = {
    "score": ("rescore", "reprobe"),
    "receipts": ("compare_with_receipts",),
    "cache": ("kept_in_cache", "clear_cache"),
    "embed": ("embed", "measure_embeddings", "tune_embeddings", "export_embeddings"),
    "synthesize": ("synthesize", "synthesize_general"),
    "run": ("run", "preview"),
}
"""Verbs that are several functions, or whose name a room of the package has."""


@pytest.mark.parametrize("verb", sorted(VERBS.keys() - {"report", "list"}))
def test_every_verb_is_a_function(verb: str) -> None:
    for name in CALLED.get(verb, (verb,)):
        assert callable(getattr(fmn, name))
        assert name in dir(fmn)


def test_every_name_that_is_completed_is_there() -> None:
    assert set(dir(fmn)) == set(fmn.__all__)
    for name in fmn.__all__:
        assert getattr(fmn, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'rnu'"):
        fmn.rnu  # noqa: B018


def test_a_path_may_be_text_wherever_one_is_asked_for() -> None:
    asked = {
        f"{name}({parameter.name})": str(parameter.annotation)
        for name in fmn.__all__
        if inspect.isfunction(function := getattr(fmn, name))
        for parameter in inspect.signature(function).parameters.values()
        if "Path" in str(parameter.annotation)
    }
    assert len(asked) > 15
    assert [name for name, annotation in asked.items() if "str" not in annotation] == []


def test_a_notebook_shows_a_mistake_as_one_sentence() -> None:
    """IPython asks an exception for this in place of the traceback that it would show."""
    with pytest.raises(UserError) as caught:
        fmn.run(model="quickstart", taks=["qs-sentiment"])
    assert caught.value._render_traceback_() == [f"UserError: {caught.value}"]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> fmn.Run:
    return fmn.run(
        model="quickstart",
        tasks=["qs-sentiment"],
        training={"limit": 16},
        evaluation={"limit": 8},
        output=str(tmp_path_factory.mktemp("runs") / "one {run}").replace("{", "{{").replace("}", "}}"),
    )


def test_settings_are_keyword_arguments(found: fmn.Run) -> None:
    assert found.path.name == "one {run}"
    assert found.matrix.shape == (2, 1)
    config = fmn.load_config(found.path / "config.yaml")
    assert (config.training.limit, config.evaluation.limit) == (16, 8)
    assert fmn.run(config, console=None).results == found.results
    with pytest.raises(UserError, match=r"no such key\. Did you mean 'training'"):
        fmn.run(config, trainig={"limit": 3})


def test_a_run_goes_on_by_its_directory_wherever_that_is(found: fmn.Run, tmp_path: Path) -> None:
    moved = found.path.rename(tmp_path / "moved")
    try:
        assert fmn.resume(moved).results == found.results
    finally:
        moved.rename(found.path)
    with pytest.raises(UserError, match="not a run's directory"):
        fmn.resume(tmp_path)


def test_a_run_shows_itself_in_a_notebook(found: fmn.Run) -> None:
    shown = found._repr_html_()
    assert "<table" in shown
    assert "report.html" in shown
    assert f"{float(found.matrix.to_numpy()[1, 0]):.3f}" in shown
    assert repr(found).startswith("Run('")


def test_a_run_is_scored_exported_and_loaded(found: fmn.Run, tmp_path: Path) -> None:
    again = found.score()
    assert again.equals(found.matrix)
    assert found.score(reading={"scoring": "generation"}).shape == (2, 1)
    said = found.export(tmp_path / "out", 1)
    assert said
    model, tokenizer = found.model()
    assert model.config.vocab_size >= len(tokenizer)


def test_a_section_given_in_part_leaves_the_rest_of_the_config(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text("tasks: [qs-sentiment]\ntraining: {epochs: 2, limit: 3}\n")
    for config in (tmp_path / "run.yaml", fmn.load_config(tmp_path / "run.yaml")):
        found = resolve(config, {"training": {"limit": 8}, "method": {"name": "ewc"}})
        assert (found.training.epochs, found.training.limit, found.method.name) == (2, 8, "ewc")
