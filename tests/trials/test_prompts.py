"""Prompts compared on select, and the best handed to a run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import forgetmenot
from forgetmenot.cli import main
from forgetmenot.config import load_config
from forgetmenot.errors import UserError
from forgetmenot.evaluation.evaluate import evaluate
from forgetmenot.runs.plan import make_plan
from forgetmenot.tasks import load_tasks
from forgetmenot.trials.prompts import PromptChoice, prompts

CHOICES = {"cat": "cat", "dog": "dog"}
VARIANTS = {
    "default": {"template": "Word: {{ word }}\nKind:", "choices": CHOICES},
    "terse": {"template": "{{ word }} =", "choices": CHOICES},
    "chat": {"template": "{{ word }}?", "choices": CHOICES, "chat": True},
}


@pytest.fixture
def animal(make_word_task: Callable[..., Path]) -> str:
    """A task with 30 examples to choose on, and three prompts."""
    return str(make_word_task("animal", 300, 24, prompts=VARIANTS))


@pytest.fixture
def compare(tiny_llama: Path, animal: str, tmp_path: Path) -> Callable[..., PromptChoice]:
    return lambda **named: prompts(str(tiny_llama), animal, output=tmp_path / "prompts", **named)


def test_every_variant_is_scored_on_select_and_held_against_the_best(
    compare: Callable[..., PromptChoice], animal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def watched(learner: Any, method: Any, scored: Any, advance: Any) -> Any:
        asked.append([example.id for example in scored.examples])
        return evaluate(learner, method, scored, advance)

    monkeypatch.setattr("forgetmenot.trials.prompts.evaluate", watched)
    found = compare()
    (task,) = load_tasks([animal], None)
    assert asked == [[example.id for example in task.select]] * 3
    animals = found.found["tasks"]["animal"]
    assert (animals["n"], animals["metric"], found.found["split"]) == (30, "accuracy", "select")
    values = {name: one["value"] for name, one in animals["variants"].items()}
    assert set(values) == set(VARIANTS)
    best = max(values, key=lambda name: values[name])
    assert animals["chosen"] == best
    assert animals["range"] == pytest.approx(max(values.values()) - min(values.values()))
    for name, one in animals["variants"].items():
        assert one["interval"][0] <= one["value"] <= one["interval"][1]
        if name == best:
            assert one["behind"] is None
        else:
            assert one["behind"] == pytest.approx(values[best] - values[name])
            assert 0 <= one["p"] <= one["p_holm"] <= 1
            assert one["test"] == "exact McNemar"
    assert list(found.table.columns)[:3] == ["task", "prompt", "value"]
    assert len(found.table) == 3


def test_the_best_is_handed_to_a_run(
    compare: Callable[..., PromptChoice], animal: str, tiny_llama: Path
) -> None:
    found = compare(prompts=("terse",))
    file = found.path / "chosen.yaml"
    assert yaml.safe_load(file.read_text()) == found.chosen == {"animal": "terse"}
    base = {"model": str(tiny_llama), "tasks": animal}
    for chosen in (str(file), found.chosen):
        config = load_config(None, {**base, "prompt": chosen})
        assert config.prompt == {"animal": "terse"}
        assert make_plan(config).prompts["animal"].name == "terse"


def test_what_it_leaves_behind(compare: Callable[..., PromptChoice]) -> None:
    found = compare(limit=10, settings={"evaluation.scoring": "generation", "demonstrations": 2})
    assert json.loads((found.path / "prompts.json").read_text()) == found.found
    one = found.found["tasks"]["animal"]["variants"]["terse"]
    assert (one["scoring"], one["demonstrations"]["count"]) == ("generation", 2)
    assert one["unparsed"] > 0
    page = (found.path / "prompts.html").read_text()
    assert page.count("<svg") == 3
    for words in ("terse", "Unparsed", "chosen", "Which prompt suits"):
        assert words in page
    assert "http" not in page.split("</style>")[1], "it asks for nothing from outside"


def test_a_chat_is_left_out_where_there_is_no_template_unless_it_is_named(
    compare: Callable[..., PromptChoice], tiny_llama: Path, tmp_path: Path, animal: str, tiny_tokenizer: Any
) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(tiny_llama, bare)
    (bare / "chat_template.jinja").unlink()
    found = prompts(str(bare), animal, output=tmp_path / "one", limit=5)
    assert list(found.found["tasks"]["animal"]["variants"]) == ["default", "terse"]
    assert found.found["tasks"]["animal"]["left_out"] == {"chat": "the model has no chat template"}
    with pytest.raises(UserError, match=r"prompt 'chat' of task 'animal' .* no chat template"):
        prompts(str(bare), animal, output=tmp_path / "two", limit=5, prompts=["chat"])


def test_what_cannot_be_compared_is_said(
    tiny_llama: Path, make_task: Callable[..., Path], make_word_task: Callable[..., Path], animal: str
) -> None:
    def of(tasks: str, **named: Any) -> None:
        prompts(str(tiny_llama), tasks, **named)

    with pytest.raises(UserError, match=r"task 'size' has no `select` split to choose a prompt on"):
        of(str(make_word_task("size", 12, 12)))
    with pytest.raises(UserError, match=r"task 'texts' is one of text, which has no prompts to choose from"):
        of(str(make_task("texts", [{"t": str(k)} for k in range(40)], [{"t": "two"}], text="t")))
    with pytest.raises(UserError, match=r"task 'animal' has no prompt 'ters'\. Did you mean 'terse'"):
        of(animal, prompts=["ters"])
    with pytest.raises(UserError, match=r"evaluation\.limit: .* greater than 0"):
        of(animal, limit=0)


def test_on_the_command_line(
    tiny_llama: Path, animal: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["prompts", str(tiny_llama), "--tasks", animal, "--prompts", "terse,default", "--limit", "10"]
    with pytest.raises(SystemExit) as exit:
        main([*command, "--output", str(tmp_path / "out"), "--set", "evaluation.normalization=tokens"])
    said = capsys.readouterr().out
    assert exit.value.code == 0
    for words in ("terse", "behind the best", "chosen.yaml", "The prompts range over"):
        assert words in said
    found = json.loads((tmp_path / "out" / "prompts.json").read_text())
    assert found["tasks"]["animal"]["variants"]["terse"]["normalization"] == "tokens"
    assert forgetmenot.prompts is prompts
