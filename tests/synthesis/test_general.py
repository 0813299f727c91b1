"""Conversations that a chat model writes from its own template: what is asked, what is dropped, going on."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import forgetmenot
from forgetmenot.cli import main
from forgetmenot.engine.decoding import Answer, Decoding
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.prompting.tokens import tokens_of
from forgetmenot.synthesis.general import (
    Conversation,
    GeneralSettings,
    general_funnel,
    opening,
    write_conversations,
)
from forgetmenot.trials.synthesize_general import synthesize_general

SMALL = GeneralSettings(count=5, max_turn_tokens=7, max_answer_tokens=9)
TURNS = ["What is a cat?", " ", "What is a cat?", "Who", "A dog?"]
ANSWERS = ["A small tiger.", "The same.", "It barks."]
CUT = "Who"  # the turn that has no end


class Talks(Learner):
    """Writes the turns and then the answers that it is told to, and notes what it was asked."""

    def __init__(self, tokenizer: Any, *written: str) -> None:
        super().__init__(torch.nn.Linear(1, 1), tokenizer, 512)
        self.end = tokens_of(tokenizer).answer_end
        self.__dict__["ends"] = frozenset((self.end,))
        self.written = list(written)
        self.asked: list[tuple[str, Decoding, int | None]] = []

    def write(
        self, prompts: Any, decoding: Decoding, *, seeds: Sequence[int] | None = None, **_: Any
    ) -> list[Answer]:
        found = []
        of_each: Sequence[int | None] = seeds or [None] * len(prompts)
        for prompt, seed in zip(prompts, of_each, strict=True):
            self.asked.append((self.tokenizer.decode(list(prompt)), decoding, seed))
            text = self.written.pop(0)
            tokens = tuple(self.tokenizer.encode(text, add_special_tokens=False))
            found.append(Answer(text, tokens if text == CUT else (*tokens, self.end)))
        return found


def test_the_user_is_written_first_and_then_answered(tiny_tokenizer: Any) -> None:
    learner = Talks(tiny_tokenizer, *TURNS, *ANSWERS)
    written = write_conversations(learner, SMALL, seed=3)
    assert [(one.user, one.answer, one.dropped) for one in written] == [
        ("What is a cat?", "A small tiger.", None),
        ("", None, "empty"),
        ("What is a cat?", "The same.", "written before"),
        ("Who", None, "has not ended"),
        ("A dog?", "It barks.", None),
    ]
    turns, answers = learner.asked[:5], learner.asked[5:]
    before = tiny_tokenizer.decode(list(opening(tokens_of(tiny_tokenizer))))
    assert {text for text, _, _ in turns} == {before}
    assert before.endswith("<|user|>")
    assert turns[0][1] == Decoding(7, temperature=1.0)
    assert len({seed for _, _, seed in turns}) == 5
    assert [text for text, _, _ in answers] == [
        f"{before}{turn}<|end|><|assistant|>" for turn in ("What is a cat?", "What is a cat?", "A dog?")
    ]
    assert answers[0][1] == Decoding(9)
    first, second = general_funnel(written)
    assert (first.entered, first.dropped) == (5, {"empty": 1, "has not ended": 1})
    assert (second.entered, second.dropped) == (3, {"empty": 0, "has not ended": 0, "written before": 1})


def test_what_is_saved_is_not_written_again(tiny_tokenizer: Any) -> None:
    whole = write_conversations(Talks(tiny_tokenizer, *TURNS, *ANSWERS), SMALL, seed=3)
    done = {one.number: one for one in whole[:3]}
    saved: list[Conversation] = []
    learner = Talks(tiny_tokenizer, *TURNS[3:], ANSWERS[2])
    again = write_conversations(learner, SMALL, seed=3, done=done, save=saved.append)
    assert again == whole
    assert [one.number for one in saved] == [3, 4]


def test_a_model_without_a_chat_template_is_refused(tiny_tokenizer: Any) -> None:
    from copy import deepcopy

    plain = deepcopy(tiny_tokenizer)
    plain.chat_template = None
    with pytest.raises(UserError, match="its own chat template, and this tokenizer has none"):
        opening(tokens_of(plain))


def test_what_is_kept_is_a_source_of_replay(
    tiny_llama: Path, tiny_tasks: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder has a task of conversations that a run mixes into each stage, and a card."""

    def write(self: Learner, prompts: Any, decoding: Decoding, **_: Any) -> list[Answer]:
        end = tokens_of(self.tokenizer).answer_end
        texts = [f"kitten {k}" for k in range(len(prompts))]
        return [Answer(text, (*self.tokenizer.encode(text), end)) for text in texts]

    with monkeypatch.context() as patch:
        patch.setattr(Learner, "write", write)
        found = synthesize_general(str(tiny_llama), tmp_path / "own", settings={"count": 6})
    assert found.found["rows"] == 6
    rows = [json.loads(line) for line in (tmp_path / "own/train.jsonl").read_text().splitlines()]
    assert rows[2]["messages"] == [
        {"role": "user", "content": "kitten 2"},
        {"role": "assistant", "content": "kitten 2"},
    ]
    assert "6 conversations of one turn" in (tmp_path / "own/README.md").read_text()
    run = forgetmenot.run(
        {
            "model": str(tiny_llama),
            "tasks": [str(tiny_tasks["animal"]), str(tmp_path / "own/task.yaml")],
            "method": {"name": "replay", "sources": "general"},
            "training.limit": 8,
            "evaluation.limit": 4,
            "output": str(tmp_path / "run"),
        }
    )
    (log,) = (run.path / "stages").glob("01-animal/training.jsonl")
    assert sum(json.loads(line)["examples"] for line in log.read_text().splitlines()) == 8 + 6


def test_where_no_conversation_is_left_the_error_says_what_dropped_them(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing that was kept before is written over by nothing."""
    (kept := tmp_path / "own").mkdir()

    def write(self: Learner, prompts: Any, decoding: Decoding, **_: Any) -> list[Answer]:
        texts = [f"kitten {k}" for k in range(len(prompts))]
        end = tokens_of(self.tokenizer).answer_end
        ends = (end,) if decoding.temperature else ()
        return [Answer(text, (*self.tokenizer.encode(text), *ends)) for text in texts]

    monkeypatch.setattr(Learner, "write", write)
    with pytest.raises(UserError, match=r"no conversation of 6 .* of turns answered: has not ended 6\. "):
        synthesize_general(str(tiny_llama), kept, settings={"count": 6})
    assert not (kept / "train.jsonl").exists()


WRONG: dict[str, tuple[list[str], str]] = {
    "no task": (["model", "out"], "name a task between the model and the folder"),
    "a task too": (["model", "task", "out", "--general"], "leave out TASK"),
    "demonstrations": (["model", "out", "--general", "--demonstrations", "5"], "leave out --demonstrations"),
    "a prompt": (["model", "out", "--general", "--prompt", "chat"], "leave out --prompt"),
    "training": (["model", "out", "--general", "--train"], "leave out --train"),
    "a setting": (["model", "out", "--general", "--set", "rounds=3"], "rounds"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_a_sentence(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, said = WRONG[case]
    with pytest.raises(SystemExit, match="2"):
        main(["synthesize", *arguments])
    assert said in capsys.readouterr().err
