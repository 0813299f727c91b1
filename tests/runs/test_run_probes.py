"""Probes in a run: measured after each stage, once, and put side by side; also on saved stages."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

import forgetmenot.probes as rooms
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.probes import Part, Probe, ProbeOptions
from forgetmenot.runs.api import Run
from forgetmenot.runs.export import export
from forgetmenot.runs.reprobe import reprobe
from tests.endpoint import serving

Go = Callable[..., Run]
Same = Callable[[Run, Run], None]


class CountingProbe(Probe):
    """The log-likelihood of a text, and the length of what is written after it; it counts its calls."""

    class Options(ProbeOptions):
        text: str = "Word: tabby"

    delta = "counting"
    calls: ClassVar[list[str]] = []
    breaks_at: ClassVar[str] = ""

    def measure(self, learner: Learner, stage: str, base: str, folder: Path) -> Sequence[Part]:
        from forgetmenot.prompting.encoded import TokenSequence

        if stage == self.breaks_at:
            raise UserError("the endpoint is gone.")
        self.calls.append(stage)
        tokens = tuple(learner.tokenizer(self.options.text)["input_ids"])
        values, _ = learner.log_likelihoods_and_greedy([TokenSequence(tokens, 1)])
        assert learner.log_likelihoods([TokenSequence(tokens, 1)]).tolist() == values.tolist(), "routed alike"
        (text,) = learner.generate([tokens], 4)
        return [
            Part("likelihood", values.item(), "nats", 1, (values.item() - 1, values.item() + 1)),
            Part("length", float(len(text)), "characters", 1, more={"tokens": 4.0}),
        ]


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[CountingProbe]:
    monkeypatch.setitem(rooms.PROBES, "counting", CountingProbe)
    monkeypatch.setattr(CountingProbe, "calls", [])
    monkeypatch.setattr(CountingProbe, "breaks_at", "")
    return CountingProbe


STAGES = ["00-base", "01-animal", "02-colour", "03-size"]
SMALL = {"training.limit": 8, "evaluation.limit": 4}
WITH = {"evaluation.probes": "counting", **SMALL}


def test_every_stage_is_measured_and_the_delta_is_the_mean_change(
    go: Go, counting: type[CountingProbe]
) -> None:
    plain = go("plain", SMALL)
    found = go("probed", WITH)
    assert counting.calls == STAGES
    probe: Any = found.results["probes"]["counting"]
    assert probe["parts"] == ["likelihood", "length"]
    assert probe["stages"] == STAGES
    assert probe["options"] == {"text": "Word: tabby"}
    base, *later = probe["values"]
    deltas = [sum(a - b for a, b in zip(row, base, strict=True)) / 2 for row in later]
    assert probe["delta"] == {"name": "counting", "values": [0.0, *map(pytest.approx, deltas)]}
    assert deltas[-1] != 0
    assert probe["missing"] == []
    stage = json.loads((found.path / "stages" / "02-colour" / "probes.json").read_text())
    assert stage["counting"][0]["value"] == probe["values"][2][0]
    # What is measured changes nothing in the run itself.
    assert found.results["matrix"] == plain.results["matrix"]
    assert found.results["readings"] == plain.results["readings"]
    page = (found.path / "report.html").read_text()
    assert "What else changed" in page
    assert "counting delta" in page


def test_a_probe_that_breaks_down_costs_no_stage_and_is_not_repeated(
    go: Go, counting: type[CountingProbe], same: Same
) -> None:
    undisturbed = go("undisturbed", WITH)
    counting.calls.clear()
    counting.breaks_at = "02-colour"
    with pytest.raises(UserError, match=r"Probe counting, stage 02-colour: the endpoint is gone\."):
        go("broken", WITH)
    assert counting.calls == STAGES[:2]
    counting.breaks_at = ""
    counting.calls.clear()
    resumed = go("broken", WITH)
    assert counting.calls == STAGES[2:]
    same(resumed, undisturbed)


def test_a_method_that_routes_answers_by_its_parts(go: Go, counting: type[CountingProbe]) -> None:
    """The word of a task is answered by that task's adapter, as when the task itself is scored."""
    found = go("routed", {**WITH, "method.name": "adapter-per-task"})
    likelihoods = [row[0] for row in found.results["probes"]["counting"]["values"]]
    assert len(set(likelihoods)) > 1


def test_saved_stages_are_measured_anew(go: Go, counting: type[CountingProbe]) -> None:
    found = go("saved", WITH)
    wanted = found.results["probes"]["counting"]
    counting.calls.clear()
    path, tables = reprobe(found.path, ["counting"])
    assert path.parent == found.path / "readings"
    assert path.name.startswith("probes-counting-")
    assert counting.calls == STAGES
    assert tables["counting"]["values"] == [
        [pytest.approx(value, rel=1e-5) for value in row] for row in wanted["values"]
    ]
    _, other = reprobe(found.path, [{"name": "counting", "text": "Word: sea"}])
    assert other["counting"]["values"][0][0] != wanted["values"][0][0]
    with pytest.raises(UserError, match=r"there is no probe 'countin'. Did you mean 'counting'"):
        reprobe(found.path, ["countin"])


def test_a_stage_without_weights_is_null_with_its_reason(go: Go, counting: type[CountingProbe]) -> None:
    found = go("pruned", {"checkpoints": "last", **SMALL})
    _, tables = reprobe(found.path, ["counting"])
    probe: Any = tables["counting"]
    assert [row[0] is None for row in probe["values"]] == [False, True, True, False]
    assert [value is None for value in probe["delta"]["values"]] == [False, True, True, False]
    assert probe["missing"][0]["stage"] == "01-animal"
    assert "no longer on disk" in probe["missing"][0]["reason"]


@pytest.mark.parametrize(
    ("probes", "sentence"),
    [
        ("countin", r"there is no probe 'countin'"),
        ([{"name": "counting", "txt": "a"}], r"evaluation\.probes\.counting\.txt: .* Did you mean 'text'"),
        (["counting", {"name": "counting", "text": "a"}], "the probe counting is listed twice"),
        ([{"text": "a"}], r"evaluation\.probes.*field required"),
        (7, r"evaluation\.probes"),
    ],
)
def test_a_wrong_entry_is_said_before_anything_is_loaded(
    probes: Any, sentence: str, go: Go, counting: type[CountingProbe], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=sentence):
        go("wrong", {"evaluation.probes": probes})
    assert not (tmp_path / "wrong" / "config.yaml").exists()


def test_safety_is_judged_over_the_stages_of_a_run(
    go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JUDGE_KEY", "sk-very-secret")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"Word: {k}"}) + "\n" for k in range(4)))
    with serving() as server:
        server.answer = lambda body: "[[C]]"
        judge = {"base_url": server.url, "model": "judge", "api_key_env": "JUDGE_KEY"}
        safety = {"name": "safety", "judge": judge, "prompts": [str(prompts)], "max_new_tokens": 5}
        found = go("judged", {"evaluation.probes": [safety], **SMALL})
        asked = len(server.requests)
        reprobe(found.path, ["safety"])
        assert len(server.requests) == asked
        assert all(one.headers["Authorization"] == "Bearer sk-very-secret" for one in server.requests)
    files = [path for path in found.path.rglob("*") if path.is_file()]
    assert not any(b"sk-very-secret" in path.read_bytes() for path in files)
    probe = found.results["probes"]["safety"]
    assert probe["values"] == [[0.5]] * 4
    assert probe["delta"] == {"name": "safety", "values": [0.0] * 4}
    assert asked == len((found.path / "probes" / "safety" / "verdicts.jsonl").read_text().splitlines())


@pytest.mark.slow
def test_general_ability_equals_lm_eval_on_the_exported_checkpoint(
    go: Go, tiny: Mapping[str, Any], tmp_path: Path
) -> None:
    """LoRA in place and the trie, against lm-eval's own model on what Transformers loads by itself."""
    pytest.importorskip("lm_eval")
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    from forgetmenot.probes import make_probe

    rows = [
        {
            "instruction": f"Please choose the correct answer to the question: {word}?\n\nAnswer1: cat "
            "Answer2: dog Answer3: red\n\nAnswer format: answer1/answer2/answer3",
            "answer": f"answer{1 + k % 3}",
        }
        for k, word in enumerate(("tabby", "puppy", "rose", "kitten", "hound", "brick", "poodle") * 4)
    ]
    path = tmp_path / "data" / "general" / "ARC-Easy" / "test.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(rows))
    options = {"tasks": ["arc_easy"]}
    found = go(
        "general",
        {
            "evaluation.probes": [{"name": "general", **options}],
            "data_dir": str(tmp_path / "data"),
            "training.learning_rate": 0.01,
        },
    )
    values = found.results["probes"]["general"]["values"]
    assert len({tuple(row) for row in values}) > 1, "training changes what is measured"
    probe: Any = make_probe("general", options, tmp_path / "data")
    ((_, loaded),) = probe._tasks()
    for number, row in enumerate(values):
        export(found.path, str(number), tmp_path / f"stage-{number}")
        alone = simple_evaluate(
            model=HFLM(pretrained=str(tmp_path / f"stage-{number}"), device="cpu", dtype="float32"),
            tasks=list(loaded["tasks"].values()),
            task_manager=probe._manager,
            bootstrap_iters=0,
            log_samples=False,
        )
        assert row == [alone["results"]["arc_easy"]["acc,none"]]
