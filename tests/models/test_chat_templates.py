"""A base model with a chat template of ours, or of the user's."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from forgetmenot.errors import UserError
from forgetmenot.models.chat_templates import FOLDER
from forgetmenot.prompting.tokens import Tokens
from forgetmenot.runs.export import export
from tests.running import Go

CHAT = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": "red"},
    {"role": "assistant", "content": "blue"},
]
WRITTEN = {
    "plain": "Be short.\n\nUser: red\n\nAssistant: blue<|endoftext|>\n\n",
    "chatml": "<|im_start|>system\nBe short.<|im_end|>\n<|im_start|>user\nred<|im_end|>\n"
    "<|im_start|>assistant\nblue<|im_end|>\n",
}


@pytest.mark.parametrize("name", sorted(WRITTEN))
def test_each_asks_as_it_is_learned(name: str, tiny_tokenizer: Any) -> None:
    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.chat_template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    tokens = Tokens(tokenizer)
    assert tokens.conversation(CHAT, reply=False) == WRITTEN[name]
    assert WRITTEN[name].startswith(tokens.conversation(CHAT[:-1], reply=True))


def test_the_names_are_all_that_there_are() -> None:
    assert {path.stem for path in FOLDER.glob("*.jinja")} == set(WRITTEN)


@pytest.fixture
def base(tiny_llama: Path, tiny_tokenizer: Any, tmp_path: Path) -> str:
    """A model whose tokenizer has no chat template."""
    AutoModelForCausalLM.from_pretrained(tiny_llama).save_pretrained(tmp_path / "base")
    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "base")
    return str(tmp_path / "base")


def test_a_base_model_learns_chats_by_the_template_that_it_is_given(
    go: Go, base: str, make_task: Callable[..., Path], tmp_path: Path
) -> None:
    rows = [{"turns": [{"role": "user", "content": f"{k}?"}, CHAT[-1]]} for k in range(12)]
    task = make_task("chats", train=rows, score=rows[:4], messages="turns")
    settings = {"model": base, "tasks": [str(task)]}
    with pytest.raises(UserError, match=r"'chats' holds chats, and .* no chat template: name one"):
        go("none", settings)
    with pytest.raises(UserError, match=r"'chatlm' cannot be read .*; name a Jinja file, or chatml or plain"):
        go("wrong", {**settings, "model.chat_template": "chatlm"})
    with pytest.raises(
        UserError, match=r"chatml ends a turn with <\|im_end\|>, .* does not know; take plain"
    ):
        go("chatml", {**settings, "model.chat_template": "chatml"})
    run = go("plain", {**settings, "model.chat_template": "plain"})
    [[before], [after]] = run.results["matrix"]
    assert before is not None
    assert after is not None
    assert after > before, "the loss, which is kept below zero, falls"
    export(run.path, "last", tmp_path / "out")
    plain = (FOLDER / "plain.jinja").read_text(encoding="utf-8")
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template.strip() == plain.strip()

    own = tmp_path / "own.jinja"
    own.write_text(plain, encoding="utf-8")
    again = {**settings, "model.chat_template": str(own), "training.epochs": 1}
    assert go("own", again).results["matrix"] == run.results["matrix"]
    own.write_text(plain.replace("Assistant", "Model"), encoding="utf-8")
    (tmp_path / "own" / "results.json").unlink()
    with pytest.raises(UserError, match="created with chat_template"):
        go("own", again)
