"""A check of the tiny model: its sides, its verdicts, its chain, and how it is kept from mistakes."""

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from forgetmenot.errors import UserError
from forgetmenot.gate import panel
from forgetmenot.gate.check import Check, check
from forgetmenot.gate.loaded import with_adapter
from forgetmenot.runs.api import Run
from forgetmenot.runs.export import export

Go = Callable[..., Run]


@pytest.fixture
def tasks(tiny_tasks: Mapping[str, Path]) -> list[str]:
    """Two of the tiny tasks."""
    return [str(tiny_tasks["animal"]), str(tiny_tasks["colour"])]


@pytest.fixture
def checked(tmp_path: Path, tasks: list[str]) -> Callable[..., Check]:
    """Check sides on the two tasks: checked(base, tuned, …, key=value)."""

    def checked(*sides: object, **settings: Any) -> Check:
        named = {"tasks": tasks, "output": tmp_path / "check", **settings}
        return check(*map(str, sides), **named)

    return checked


def test_a_model_against_itself_turns_no_answer(checked: Callable[..., Check], tiny_llama: Path) -> None:
    found = checked(tiny_llama, tiny_llama, margin=0.3)
    assert found.status == 0
    for verdict in found.content["verdicts"].values():
        assert (verdict["decision"], verdict["difference"]) == ("kept", 0.0)
        assert (verdict["forgotten"], verdict["gained"]) == (0, 0)
    again = found.content["asked_again"]
    assert all(one["n"] == 24 and one["different"] == 0 for one in again.values())
    assert all(one["log_likelihood_apart"] < 1e-4 for one in again.values())
    assert found.content["flips"] == {"animal": [], "colour": []}


def test_too_few_examples_are_status_3_and_say_how_many(
    checked: Callable[..., Check], tiny_llama: Path
) -> None:
    found = checked(tiny_llama, tiny_llama)
    assert found.status == 3
    verdict = found.content["verdicts"]["animal"]
    # Wilson's zero count: n such that z² / (n + z²) = .03.
    assert verdict["needed"] >= 125
    assert "Cannot tell whether it kept animal" in (found.path / "check.md").read_text()


def spoiled(model: Path, folder: Path) -> Path:
    """A copy of a model whose last layer's output is turned round."""
    from forgetmenot.models.load import no_progress_bars

    with no_progress_bars():
        shutil.copytree(model, folder)
        weights = AutoModelForCausalLM.from_pretrained(model)
        with torch.no_grad():
            weights.model.norm.weight.mul_(-1)
        weights.save_pretrained(folder)
    return folder


def test_what_was_lost_is_status_1_and_comes_first(
    go: Go, checked: Callable[..., Check], tmp_path: Path
) -> None:
    run = go("one", {"training.epochs": 6, "training.learning_rate": 5e-3})
    export(run.path, "2", tmp_path / "exported")
    bad = spoiled(tmp_path / "exported", tmp_path / "bad")
    found = checked(tmp_path / "exported", bad, margin=0.1)
    assert found.content["verdicts"]["colour"]["before"] > 0.7
    assert found.status == 1
    lost = [task for task, one in found.content["verdicts"].items() if one["decision"] == "forgotten"]
    assert "colour" in lost
    text = (found.path / "check.md").read_text()
    assert text.startswith("## Forgotten: ")
    assert text.index("bad forgot ") < text.index("| task |")
    flips = found.content["flips"]["colour"]
    lost_there = [one for one in flips if one["turned"] == "lost"]
    assert len(lost_there) == found.content["verdicts"]["colour"]["forgotten"]
    assert flips[0]["turned"] == "lost"
    root = fromstring((found.path / "check.xml").read_bytes())
    failed = {case.get("name") for case in root.iter("testcase") if case.find("failure") is not None}
    assert failed == set(lost)
    page = (found.path / "check.html").read_text()
    assert page.index("forgot") < page.index("From the base to the end")
    assert all(one["text"].splitlines()[0] in page for one in flips)


def test_a_stage_its_export_and_the_base_are_a_chain(
    go: Go, checked: Callable[..., Check], tiny_llama: Path, tmp_path: Path
) -> None:
    run = go("one", {"training.epochs": 4, "training.learning_rate": 3e-3})
    export(run.path, "last", tmp_path / "exported")
    found = checked(tiny_llama, f"{run.path}:last", tmp_path / "exported", margin=0.3)
    first, second = found.content["steps"]
    assert (first["kind"], second["kind"]) == ("stage", "model")
    assert first["after"] == "one:03-size"
    # The stage's scores are the run's own, and its export answers alike.
    for task in ("animal", "colour"):
        column = run.results["tasks"].index(task)
        assert first["verdicts"][task]["after"] == run.results["matrix"][3][column]
        assert first["verdicts"][task]["before"] == run.results["matrix"][0][column]
        assert second["verdicts"][task]["forgotten"] == 0
    assert found.content["control"]["animal"]["different"] == 0
    assert found.content["control"]["animal"]["log_likelihood_apart"] < 1e-4


def test_stages_by_number_name_and_last(go: Go, checked: Callable[..., Check]) -> None:
    run = go("one", {"training.limit": 8})
    contents = [checked(f"{run.path}:0", f"{run.path}:{stage}") for stage in ("2", "02", "02-colour")]
    assert [one.content["tuned"][0]["title"] for one in contents] == ["one:02-colour"] * 3
    assert contents[0].content["base"]["kind"] == "base of a run"


def adapter(model: Path, folder: Path, **changes: Any) -> Path:
    """A PEFT adapter of the model that changes something."""
    base = AutoModelForCausalLM.from_pretrained(model)
    adapted = get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.5)
    adapted.save_pretrained(folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, **changes}))
    return folder


def test_an_adapter_stands_on_the_base_that_it_names(
    checked: Callable[..., Check], tiny_llama: Path, tmp_path: Path
) -> None:
    tuned = adapter(tiny_llama, tmp_path / "adapter")
    found = checked(tiny_llama, tuned)
    assert found.content["tuned"][0]["kind"] == "adapter"
    assert found.content["tuned"][0]["weights"].startswith(f"{found.content['base']['weights']}+")

    # It answers as PEFT's own merged model does.
    whole = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_llama), tuned)
    whole.merge_and_unload().save_pretrained(tmp_path / "merged")
    for file in tiny_llama.glob("*token*"):
        shutil.copy(file, tmp_path / "merged")
    same = checked(tuned, tmp_path / "merged", margin=0.3)
    assert all(one["forgotten"] + one["gained"] == 0 for one in same.content["verdicts"].values())


@pytest.mark.parametrize(
    "settings",
    [
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["lm_head"]},
        {"modules_to_save": ["norm"]},
        {"use_dora": True},
        {"use_rslora": True, "rank_pattern": {"layers.0.self_attn.q_proj": 4}},
    ],
)
def test_an_adapter_of_any_layers_answers_as_in_peft(
    tiny_llama: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    base = AutoModelForCausalLM.from_pretrained(tiny_llama)
    config = LoraConfig(**{"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **settings})
    adapted = get_peft_model(base, config).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) / 10)
    adapted.save_pretrained(tmp_path / "adapter")
    read = with_adapter(AutoModelForCausalLM.from_pretrained(tiny_llama), tmp_path / "adapter")
    tokens = torch.tensor([[5, 6, 7]])
    assert torch.equal(read(tokens).logits, adapted(tokens).logits)


def test_the_control_is_told_of_a_plain_base_alone(
    go: Go, checked: Callable[..., Check], tiny_llama: Path, tmp_path: Path
) -> None:
    """On a base with an adapter of its own nothing would be added, and the control would say nothing."""
    tuned = adapter(tiny_llama, tmp_path / "adapter")
    assert checked(tiny_llama, tuned).content["control"]
    assert checked(tuned, tuned, output=tmp_path / "other").content["control"] == {}
    run = go("one", {"training.limit": 8})
    stages = checked(f"{run.path}:1", f"{run.path}:2", output=tmp_path / "stages")
    assert stages.content["control"] == {}


@pytest.mark.parametrize("named", ["/gone/model", "models/{name}"])
def test_an_adapter_of_a_base_that_is_not_here_is_put_on_the_base(
    checked: Callable[..., Check], tiny_llama: Path, tmp_path: Path, named: str
) -> None:
    """By a path that is one, or by the name of the base's folder, where it was tuned from another place."""
    named = named.format(name=tiny_llama.name)
    elsewhere = adapter(tiny_llama, tmp_path / "adapter", base_model_name_or_path=named)
    found = checked(tiny_llama, elsewhere)
    assert found.content["notes"]
    assert named in found.content["notes"][0]


def test_the_baseline_is_asked_once(
    checked: Callable[..., Check], tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = tmp_path / "baseline.json"
    first = checked(tiny_llama, adapter(tiny_llama, tmp_path / "adapter"), baseline=kept)

    asked: list[str] = []
    ask = panel.answers_of

    def counting(opened: Any, scored: Any, display: Any) -> Any:
        asked.append(opened.identity["title"])
        return ask(opened, scored, display)

    monkeypatch.setattr("forgetmenot.gate.answered.answers_of", counting)
    second = checked(tiny_llama, tmp_path / "adapter", baseline=kept)
    assert asked == ["adapter"]
    assert second.content == first.content


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"limit": 10}, "examples of task animal (it was 24, and is 10)"),
        ({"prompt": "terse"}, "prompt of task animal"),
        ({"tasks": "animal"}, "panel of tasks (colour is in one and not in the other)"),
    ],
)
def test_a_baseline_of_something_else_is_refused(
    checked: Callable[..., Check],
    tiny_llama: Path,
    tiny_tasks: Mapping[str, Path],
    tmp_path: Path,
    change: dict[str, Any],
    says: str,
) -> None:
    kept = tmp_path / "baseline.json"
    checked(tiny_llama, tiny_llama, baseline=kept)
    if "tasks" in change:
        change = {"tasks": [str(tiny_tasks["animal"])]}
    with pytest.raises(UserError) as refused:
        checked(tiny_llama, tiny_llama, baseline=kept, **change)
    assert says in str(refused.value)


ROWS = [{"text": f"word {k}", "mood": "uv"[k % 2], "page": f"{k // 4}"} for k in range(24)]
ABOUT = {"label": "mood", "metric": "accuracy"}
CHOICES = {"u": "up", "v": "down"}


@pytest.mark.parametrize(
    ("rows", "about", "choices"),
    [
        ([{**row, "text": f"{row['text']}!"} for row in ROWS], ABOUT, CHOICES),
        ([{**row, "mood": "vu"[k % 2]} for k, row in enumerate(ROWS)], ABOUT, CHOICES),
        (ROWS, {**ABOUT, "cluster": "page"}, CHOICES),
        (ROWS, ABOUT, {"v": "down", "u": "up"}),
    ],
    ids=["texts", "labels", "clusters", "the order of the choices"],
)
def test_a_baseline_of_other_data_under_the_same_names_is_refused(
    checked: Callable[..., Check],
    tiny_llama: Path,
    tmp_path: Path,
    make_task: Callable[..., Path],
    rows: list[dict[str, str]],
    about: dict[str, str],
    choices: dict[str, str],
) -> None:
    def task(of: list[dict[str, str]], keys: dict[str, str], words: dict[str, str]) -> Path:
        prompts = {"default": {"template": "Word: {{ text }}\nMood:", "choices": words}}
        path = make_task("mood", (), of, **keys, prompts=prompts)
        content = {**yaml.safe_load(path.read_text()), "prompts": prompts}
        path.write_text(yaml.safe_dump(content, sort_keys=False))  # in the order of the choices
        return path

    kept = tmp_path / "baseline.json"
    checked(tiny_llama, tiny_llama, baseline=kept, tasks=[str(task(ROWS, ABOUT, CHOICES))])
    checked(tiny_llama, tiny_llama, baseline=kept, tasks=[str(task(ROWS, ABOUT, CHOICES))])
    with pytest.raises(UserError, match="data of task mood"):
        checked(tiny_llama, tiny_llama, baseline=kept, tasks=[str(task(rows, about, choices))])


@pytest.mark.parametrize("column", ["predicted", "gold"])
def test_a_baseline_that_was_edited_is_refused(
    checked: Callable[..., Check], tiny_llama: Path, tmp_path: Path, column: str
) -> None:
    kept = tmp_path / "baseline.json"
    checked(tiny_llama, tiny_llama, baseline=kept)
    content = json.loads(kept.read_text())
    answers = content["answers"]["animal"]
    answers[column][0] = next(label for label in answers["labels"] if label != answers[column][0])
    kept.write_text(json.dumps(content))
    with pytest.raises(UserError, match="was changed after it was written"):
        checked(tiny_llama, tiny_llama, baseline=kept)


def test_a_baseline_that_cannot_be_written_is_said_before_anything_is_asked(
    checked: Callable[..., Check], tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("forgetmenot.gate.check.ask_base", None)
    with pytest.raises(UserError, match="is a folder"):
        checked(tiny_llama, tiny_llama, baseline=tmp_path)


def test_prompts_that_are_cut_are_said_and_belong_to_the_baseline(
    go: Go, checked: Callable[..., Check], tiny_llama: Path, tmp_path: Path
) -> None:
    run = go("one", {"training.limit": 8, "training.max_length": 8})
    kept = tmp_path / "baseline.json"
    found = checked(tiny_llama, f"{run.path}:last", baseline=kept)
    assert [note for note in found.content["notes"] if "were cut" in note and "of animal" in note]
    with pytest.raises(UserError, match="cut of task animal"):
        checked(tiny_llama, tiny_llama, baseline=kept)


def test_a_stage_of_another_model_than_the_base_is_said(go: Go, checked: Callable[..., Check]) -> None:
    run = go("one", {"training.limit": 8})
    assert checked(f"{run.path}:0", f"{run.path}:1").content["notes"] == []
    assert "stands on" in checked("quickstart", f"{run.path}:1").content["notes"][0]


@pytest.mark.parametrize("name", ["check.md", "results.json", "config.yaml"])
def test_what_is_no_check_is_not_written_over(
    checked: Callable[..., Check], tiny_llama: Path, tmp_path: Path, name: str
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / name).write_text("mine")
    with pytest.raises(UserError, match=f"holds {name!r} and is no folder of `fmn check`"):
        checked(tiny_llama, tiny_llama, output=tmp_path / "mine")
    assert (tmp_path / "mine" / name).read_text() == "mine"


def test_another_models_baseline_is_refused(
    checked: Callable[..., Check], tiny_llama: Path, tmp_path: Path
) -> None:
    kept = tmp_path / "baseline.json"
    checked(tiny_llama, tiny_llama, baseline=kept)
    other = spoiled(tiny_llama, tmp_path / "tiny-llama")
    with pytest.raises(UserError, match="another weights"):
        checked(other, tiny_llama, baseline=kept)


def test_with_chat_each_side_uses_its_own_template(
    checked: Callable[..., Check], tiny_llama: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "plain"
    shutil.copytree(tiny_llama, plain)
    (plain / "chat_template.jinja").unlink(missing_ok=True)
    config = json.loads((plain / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    (plain / "tokenizer_config.json").write_text(json.dumps(config))
    without = checked(tiny_llama, plain, margin=0.3)
    assert all(one["forgotten"] + one["gained"] == 0 for one in without.content["verdicts"].values())
    found = checked(tiny_llama, plain, chat=True)
    assert found.content["chat"] is True
    assert any("has no chat template" in note for note in found.content["notes"])


def test_losses_of_other_tokenizers_are_not_compared(
    checked: Callable[..., Check], tiny_llama: Path, make_task: Callable[..., Path]
) -> None:
    rows = [{"text": f"a line of text, number {k}"} for k in range(40)]
    text = make_task("lines", [], rows, text="text", metric="loss")
    found = checked(tiny_llama, "quickstart", tasks=[str(text)])
    verdict = found.content["verdicts"]["lines"]
    assert verdict["decision"] == "cannot tell"
    assert "tokenizers" in verdict["reason"]
    assert found.status == 3


def test_sequential_stops_when_all_is_decided(
    checked: Callable[..., Check],
    tiny_llama: Path,
    make_word_task: Callable[..., Path],
    tmp_path: Path,
) -> None:
    many = [str(make_word_task("animal", 1, 600))]
    whole = checked(tiny_llama, tiny_llama, tasks=many, margin=0.1)
    early = checked(tiny_llama, tiny_llama, tasks=many, margin=0.1, sequential=True)
    assert (whole.status, early.status) == (0, 0)
    verdict = early.content["verdicts"]["animal"]
    assert 0 < verdict["n"] < 600
    assert (verdict["decision"], verdict["interval"], verdict["test"]) == ("kept", None, "betting e-process")
    assert early.content["tasks"]["animal"]["n"] == 600
    # The same answers as without stopping, as far as it asked.
    bad = spoiled(tiny_llama, tmp_path / "bad")
    all_turned = checked(tiny_llama, bad, tasks=many, margin=0.1).content["flips"]["animal"]
    some = checked(tiny_llama, bad, tasks=many, margin=0.1, sequential=True)
    turned = some.content["flips"]["animal"]
    assert {one["example"] for one in turned} <= {one["example"] for one in all_turned}
    (some.path / "check.html").read_text()


def test_sequential_runs_out_of_examples(checked: Callable[..., Check], tiny_llama: Path) -> None:
    found = checked(tiny_llama, tiny_llama, sequential=True)
    assert found.status == 3
    assert found.content["verdicts"]["animal"]["n"] == 24


def test_sequential_asks_losses_whole(
    checked: Callable[..., Check], tiny_llama: Path, make_task: Callable[..., Path]
) -> None:
    rows = [{"text": f"a line of text, number {k}"} for k in range(40)]
    text = make_task("lines", [], rows, text="text", metric="loss")
    verdict = checked(tiny_llama, tiny_llama, tasks=[str(text)], sequential=True).content["verdicts"]["lines"]
    assert (verdict["n"], verdict["test"], verdict["decision"]) == (40, "paired bootstrap", "kept")


def test_probes_are_measured_of_each_side(
    checked: Callable[..., Check], tiny_llama: Path, tmp_path: Path
) -> None:
    tuned = adapter(tiny_llama, tmp_path / "adapter")
    found = checked(tiny_llama, tuned, probes=[{"name": "drift", "limit": 4}])
    table = found.content["probes"]["drift"]
    assert table["stages"] == ["00-tiny-llama", "01-adapter"]
    column = table["parts"].index("animal divergence")
    assert table["values"][0][column] == pytest.approx(0.0, abs=1e-6)
    assert table["values"][1][column] > 1e-4
    assert "animal divergence" in (found.path / "check.html").read_text()
    with pytest.raises(UserError, match="there is no probe 'drfit'"):
        checked(tiny_llama, tuned, probes=["drfit"])
