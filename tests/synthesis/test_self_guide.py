"""SELF-GUIDE as a whole: what is asked, kept and counted, the same whatever the batch, never twice."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from forgetmenot.engine.decoding import Decoding
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.prompting import Prompt
from forgetmenot.synthesis.draw_log import DrawLog
from forgetmenot.synthesis.self_guide import likeliest, synthesize_examples
from forgetmenot.synthesis.settings import SynthesisSettings
from forgetmenot.synthesis.subject import Request, Subject, guided_prompt
from forgetmenot.synthesis.writer import Drawn, LearnerWriter, seed_of
from forgetmenot.tasks import Example, Task

PROMPT = Prompt("default", "Word: {{ word }}\nKind:", {"cat": "cat", "dog": "dog"})
SHOWN = [
    Example("train-0", {"word": "tabby"}, label="cat"),
    Example("train-1", {"word": "hound 1"}, label="dog"),
]
TASK = Task("animal", "choice", "accuracy", SHOWN, [], [], labels=("cat", "dog"))
SUBJECT = Subject(TASK, PROMPT, SHOWN)
FEW = SynthesisSettings(rounds=2, per_round=4, outputs=3, best_of=3, min_frequency=0.5, input_window=False)


class Scripted:
    """Writes what it was told to: inputs in order, and for each input its outputs in order."""

    def __init__(self, inputs: Sequence[str], outputs: Mapping[str, Sequence[str]]) -> None:
        self.inputs, self.outputs = list(inputs), outputs
        self.asked: list[Request] = []
        self.seeds: list[int] = []
        self.stops: list[tuple[str, ...]] = []

    def length(self, request: Request) -> int:
        return sum(len(turn["content"]) for turn in request.messages)

    def draw(
        self,
        requests: Sequence[Request],
        decoding: Decoding,
        seeds: Sequence[int],
        *,
        weighed: bool = False,
        advance: Any = None,
    ) -> list[Drawn]:
        self.asked += requests
        self.seeds += seeds
        self.stops.append(decoding.stop)
        if "[input]" in requests[0].messages[-1]["content"]:
            return [Drawn(self.inputs.pop(0)) for _ in requests]
        texts, seen = [], dict.fromkeys(self.outputs, 0)
        for request in requests:
            word = request.messages[-1]["content"].rpartition("Word: ")[2].partition("\n")[0]
            texts.append(self.outputs[word][seen[word]])
            seen[word] += 1
        return [Drawn(text, -float(k)) for k, text in enumerate(texts)]


INPUTS = ["kitten", "puppy", "tabby", "", 'kitten"\n', "lion", "mouser", "output"]
OUTPUTS: dict[str, Sequence[str]] = {
    "kitten": [" cat", " cat", " dog"],
    "puppy": [" dog\n\nWord: x", " dog", ""],
    "lion": [" a", " b", " c"],
    "mouser": [" cat", " cat", " cat"],
}


def test_every_step_is_counted_with_its_reasons() -> None:
    found = synthesize_examples(Scripted(INPUTS, OUTPUTS), SUBJECT, FEW)
    inputs, outputs, answered, classes = (one.to_json() for one in found.funnel)
    assert inputs["entered"] == 8
    assert inputs["left"] == 4
    assert {reason: n for reason, n in inputs["dropped"].items() if n} == {
        "empty": 1,
        "noise list": 1,
        "written before": 2,  # one of them a demonstration
    }
    assert (outputs["entered"], outputs["dropped"]["empty"]) == (12, 1)
    assert answered["dropped"] == {"no output left": 0, "outputs differ": 1, "names no label": 0}
    assert classes["entered"] == 3
    assert classes["dropped"] == {"more than the rarest label has": 1}
    assert sorted((row.label, row.fields["word"]) for row in found.rows)[1] == ("dog", "puppy")
    assert found.to_json()["labels"] in ({"cat": 1, "dog": 1}, {"dog": 1, "cat": 1})
    assert len(found.rows) == classes["left"] == 2


def test_a_row_without_a_label_is_dropped_before_the_smallest_class_is_counted() -> None:
    outputs: dict[str, Sequence[str]] = {**OUTPUTS, "lion": [" lion"] * 3}
    found = synthesize_examples(Scripted(INPUTS, outputs), SUBJECT, FEW)
    assert found.funnel[2].dropped["names no label"] == 1
    assert sorted(str(row.label) for row in found.rows) == ["cat", "dog"]


def test_a_request_has_the_papers_parts_and_what_all_share_first() -> None:
    writer = Scripted(INPUTS, OUTPUTS)
    synthesize_examples(writer, SUBJECT, FEW)
    first, later = (writer.asked[k].messages[-1]["content"] for k in (0, 4))
    assert first.startswith("Task:\nGiven the input, answer this:\nWord: [word]\nKind:\n")
    assert "The answer is one of: cat, dog" in first
    assert "none yet" in first
    for shown in ('[input]="tabby"', '[input]="hound 1"'):
        assert shown in first
        assert shown in later
    assert '[input]="kitten"' in later or '[input]="puppy"' in later
    assert 'the right answer is "cat"' in first or 'the right answer is "dog"' in first
    assert first.endswith('\n\n[input]="')
    asked = {text.partition("right answer is ")[2][:5] for text in map(str, writer.asked)} - {""}
    assert len(asked) == 2  # labels are drawn
    assert writer.stops[0][0] == '"\n'
    assert "\n\n" in writer.stops[0]
    assert len(set(writer.seeds)) == len(writer.seeds)


def test_an_output_is_asked_for_with_the_demonstrations_before_it() -> None:
    writer = Scripted(INPUTS, OUTPUTS)
    synthesize_examples(writer, SUBJECT, FEW)
    assert writer.asked[-1].messages[-1]["content"] == (
        "Word: tabby\nKind: cat\n\nWord: hound 1\nKind: dog\n\nWord: mouser\nKind:"
    )


def test_a_chat_is_asked_in_its_template_and_no_input_is_opened_for_it() -> None:
    writer = Scripted(['"kitten"', "puppy", "lion", "mouser"], OUTPUTS)
    prompt = replace(PROMPT, chat=True, separator="", system="Be brief.")
    found = synthesize_examples(
        writer,
        replace(SUBJECT, prompt=prompt),
        FEW.model_copy(update={"rounds": 1, "balance": False, "chat": True}),
    )
    assert writer.asked[0].chat
    assert not writer.asked[0].messages[-1]["content"].endswith('"')
    system, user = writer.asked[-1].messages
    assert system["content"] == "Be brief."
    assert "Kind:\nAnswer: cat\n\nWord: hound" in user["content"]
    assert [row.fields["word"] for row in found.rows] == ["kitten", "puppy", "mouser"]


def test_an_instruction_is_written_once() -> None:
    prompt = Prompt("default", "Name the kind.\n\nWord: {{ word }}\nKind:", PROMPT.choices)
    found = guided_prompt(prompt, SHOWN, ["cat", "dog"], "Name the kind.")
    assert found.render({"word": "pug"}) == (
        "Name the kind.\n\nWord: tabby\nKind: cat\n\nWord: hound 1\nKind: dog\n\nWord: pug\nKind:"
    )
    braces = [Example("x", {"word": "{{ 1 }} {% if %}"}, label="cat")]
    assert "{{ 1 }} {% if %}" in guided_prompt(PROMPT, braces, ["cat"]).render({"word": "pug"})


def test_free_answers_have_no_labels_and_no_classes() -> None:
    shown = [Example("train-0", {"word": "tabby"}, target="a cat")]
    task = Task("kinds", "answer", "exact_match", shown, [], [])
    writer = Scripted(INPUTS, OUTPUTS)
    found = synthesize_examples(
        writer,
        Subject(task, Prompt("default", "Word: {{ word }}\nKind:"), shown),
        FEW.model_copy(update={"output_window": False}),
    )
    assert [(row.fields["word"], row.target) for row in found.rows] == [
        ("kitten", "cat"),
        ("puppy", "dog"),
        ("mouser", "cat"),
    ]
    assert len(found.funnel) == 3
    assert "right answer" not in str(writer.asked[0])


def test_blanks_make_no_other_input() -> None:
    shown = [
        Example("train-0", {"word": " tabby ", "place": "yard"}, label="cat"),
        Example("train-1", {"word": "hound", "place": "lane"}, label="dog"),
    ]
    prompt = replace(PROMPT, template="Word: {{ word }}\nplace: {{ place }}\nKind:")
    of_two = ["word: a\nplace: b", "word:  a\nplace:b", "word: a\n\nplace: b", "word: tabby\nplace: yard"]
    outputs = {"a": [" cat"] * 3}
    found = synthesize_examples(
        Scripted(of_two, outputs),
        Subject(TASK, prompt, shown),
        FEW.model_copy(update={"rounds": 1, "noise": ()}),
    )
    assert [one.dropped for one in found.candidates[1:]] == ["written before"] * 3
    of_one = Scripted(["tabby"], {})
    found = synthesize_examples(
        of_one, Subject(TASK, PROMPT, shown), FEW.model_copy(update={"rounds": 1, "per_round": 1})
    )
    assert found.candidates[0].dropped == "written before"


def test_the_likeliest_outputs_are_taken() -> None:
    drawn = [Drawn("a", -3.0), Drawn("b", -1.0), Drawn("c", -2.0)]
    assert likeliest(drawn, 2) == drawn[1:]
    assert likeliest(drawn, 3) == drawn


def test_worse_examples_give_way_to_the_context() -> None:
    writer = Scripted([f"word {k}" for k in range(8)], {f"word {k}": [" cat"] * 3 for k in range(8)})
    room = FEW.model_copy(update={"context_tokens": 420})
    synthesize_examples(writer, SUBJECT, room)
    assert all(writer.length(request) < 420 for request in writer.asked)
    with pytest.raises(UserError, match="context_tokens: instruction and demonstrations alone take"):
        synthesize_examples(Scripted([], {}), SUBJECT, FEW.model_copy(update={"context_tokens": 50}))


def test_what_fits_no_input_is_said() -> None:
    same = [replace(SHOWN[0], fields={"word": "tabby"}), replace(SHOWN[1], fields={"word": "hound"})]
    with pytest.raises(UserError, match="input_window: the inputs of the demonstrations are all 5"):
        synthesize_examples(Scripted([], {}), replace(SUBJECT, demonstrations=same), SynthesisSettings())
    with pytest.raises(UserError, match="no solved examples"):
        replace(SUBJECT, demonstrations=[])


@pytest.fixture
def learner(tiny_llama: Path) -> Learner:
    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    tokenizer.chat_template = None
    model = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    model.config.max_position_embeddings = 2048
    return Learner(model, tokenizer, budget=512)


REAL = SynthesisSettings(
    rounds=3, per_round=4, outputs=2, best_of=3, max_input_tokens=6, max_output_tokens=3, temperature=2.0,
    noise=(), input_window=False, min_frequency=0.0, balance=False,
)  # fmt: skip


def test_draws_do_not_depend_on_the_batch(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = synthesize_examples(LearnerWriter(learner), SUBJECT, REAL, seed=3)
    assert len({one.text for one in whole.candidates}) > 6
    monkeypatch.setattr("forgetmenot.synthesis.self_guide.AT_ONCE", 1)
    monkeypatch.setattr("forgetmenot.engine.generate.ROWS", 1)
    assert synthesize_examples(LearnerWriter(learner), SUBJECT, REAL, seed=3) == whole
    assert synthesize_examples(LearnerWriter(learner), SUBJECT, REAL, seed=4) != whole


def test_log_likelihoods_are_those_of_the_written_tokens(learner: Learner) -> None:
    writer = LearnerWriter(learner)
    request = SUBJECT.ask_for_output(SHOWN[0])
    [one, other] = writer.draw([request] * 2, Decoding(1, temperature=1.0), [1, 2], weighed=True)
    from forgetmenot.prompting import TokenSequence

    prompt = writer._tokens(request)
    [answer] = learner.write([prompt], Decoding(1, temperature=1.0), seeds=[1])
    [value] = learner.log_likelihoods([TokenSequence(prompt + answer.tokens, len(prompt))]).tolist()
    assert one.log_likelihood == pytest.approx(value, abs=1e-5)
    assert one.text != other.text or one.log_likelihood == pytest.approx(other.log_likelihood)


class Dies(LearnerWriter):
    """Draws a few times, and then draws no more."""

    left = 2

    def draw(self, *args: Any, **kwargs: Any) -> list[Drawn]:
        if Dies.left == 0:
            raise KeyboardInterrupt
        Dies.left -= 1
        return super().draw(*args, **kwargs)


def test_what_was_drawn_is_not_drawn_again(learner: Learner, tmp_path: Path) -> None:
    log = tmp_path / "drawn.jsonl"
    whole = synthesize_examples(LearnerWriter(learner), SUBJECT, REAL)
    Dies.left = 2
    with pytest.raises(KeyboardInterrupt):
        synthesize_examples(Dies(learner), SUBJECT, REAL, log=DrawLog(log))
    with log.open("a") as stream:
        stream.write('["cut')
    Dies.left = 2  # of three rounds and one block of outputs two are left
    assert synthesize_examples(Dies(learner), SUBJECT, REAL, log=DrawLog(log)) == whole
    Dies.left = 0
    assert synthesize_examples(Dies(learner), SUBJECT, REAL, log=DrawLog(log)) == whole
    said: list[str] = []
    lines = log.read_text().splitlines()
    changed = lines[0][:5] + ("b" if lines[0][5] == "a" else "a") + lines[0][6:]
    log.write_text("\n".join([changed, *lines[1:]]) + "\n")
    Dies.left = 1
    assert synthesize_examples(Dies(learner), SUBJECT, REAL, log=DrawLog(log, say=said.append)) == whole
    assert len(said) == 1
    assert "1 of 4 lines are damaged" in said[0]


def test_outputs_without_their_likelihood_are_drawn_again_where_it_counts(
    learner: Learner, tmp_path: Path
) -> None:
    weighed = synthesize_examples(LearnerWriter(learner), SUBJECT, REAL)
    all_of_them = REAL.model_copy(update={"outputs": REAL.best_of})
    log = tmp_path / "drawn.jsonl"
    synthesize_examples(LearnerWriter(learner), SUBJECT, all_of_them, log=DrawLog(log))
    assert synthesize_examples(LearnerWriter(learner), SUBJECT, REAL, log=DrawLog(log)) == weighed


def test_seeds_follow_from_their_place() -> None:
    assert seed_of(0, "input", 1) == seed_of(0, "input", 1) != seed_of(0, "input", 2)
    assert 0 <= seed_of(1) < 2**63
