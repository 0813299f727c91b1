"""An answer is over at one of several tokens, in training, in writing and in what reads it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from forgetmenot.engine import guard
from forgetmenot.engine.decoding import Decoding
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.next_token import Endings
from forgetmenot.prompting import Encoder, Prompt
from forgetmenot.prompting.encoded import TokenSequence
from forgetmenot.prompting.tokens import Tokens
from forgetmenot.tasks import Example, Task

CHATML = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def saying(learner: Learner, *tokens: int) -> None:
    """Let the model write these tokens, whatever it is asked, and then the last again and again."""
    plain = learner.model.forward
    steps = {"n": -1}

    def forward(*args: Any, **named: Any) -> Any:
        found = plain(*args, **named)
        steps["n"] += 1
        found.logits[..., tokens[min(steps["n"], len(tokens) - 1)]] = 1e3
        return found

    learner.model.forward = forward


@pytest.fixture
def chatting(tiny_llama: Path) -> Learner:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_llama)
    model = AutoModelForCausalLM.from_pretrained(tiny_llama, dtype=torch.float32).eval()
    return Learner(model, tokenizer, budget=256)


def ids(learner: Learner, text: str) -> list[int]:
    found: list[int] = learner.tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def test_the_ends_are_those_of_tokenizer_generation_config_and_template(chatting: Learner) -> None:
    eos, end, system = (
        chatting.tokenizer.convert_tokens_to_ids(one) for one in ("<|endoftext|>", "<|end|>", "<|system|>")
    )
    assert chatting.ends == {eos, end}
    for own, wanted in (
        (system, {eos, end, system}),
        ([eos, system], {eos, end, system}),
        (None, {eos, end}),
    ):
        chatting.model.generation_config.eos_token_id = own
        assert Learner(chatting.model, chatting.tokenizer, budget=1).ends == wanted
    chatting.tokenizer.chat_template = None
    assert Learner(chatting.model, chatting.tokenizer, budget=1).ends == {eos}


@pytest.mark.parametrize("special", [True, False])
def test_the_turns_end_need_not_be_marked_as_special(special: bool, tiny_tokenizer: Any) -> None:
    from copy import deepcopy

    from tokenizers import AddedToken

    tokenizer = deepcopy(tiny_tokenizer)
    tokenizer.add_tokens([AddedToken("<turn|>", special=special, normalized=False)], special_tokens=special)
    tokenizer.chat_template = CHATML.replace("<|end|>", "<turn|>")
    assert Tokens(tokenizer).turn_end_token == tokenizer.convert_tokens_to_ids("<turn|>")


@pytest.mark.parametrize("end", ["<|end|>", "<|endoftext|>"])
def test_writing_ends_with_the_turn(end: str, chatting: Learner) -> None:
    saying(chatting, *ids(chatting, f"cat{end}dog"))
    (answer,) = chatting.write([(5, 6)], Decoding(12))
    assert answer.text == "cat"
    assert list(answer.tokens) == ids(chatting, f"cat{end}")


@pytest.mark.parametrize("stop", ["<|user|>", "<|user|>\n", "at<|user|>"])
def test_a_stop_string_may_hold_a_special_token(stop: str, chatting: Learner) -> None:
    saying(chatting, *ids(chatting, "c<|system|>at<|user|>\ndog"))
    (answer,) = chatting.write([(5, 6)], Decoding(20, stop=(stop,)))
    assert answer.text == ("c" if stop.startswith("at") else "cat")
    assert len(answer.tokens) <= len(ids(chatting, "c<|system|>at<|user|>\n"))


def test_without_such_a_stop_special_tokens_are_left_out_of_the_text(chatting: Learner) -> None:
    endings = Endings(chatting.tokenizer, chatting.ends, ("dog",))
    tokens = ids(chatting, "c<|system|>at dog")
    assert endings.reached(tokens)
    assert not endings.reached(tokens[:-2])
    assert endings.text(tokens) == "cat "


def chat_task(kind: str) -> tuple[Task, Prompt]:
    if kind == "messages":
        turns = [{"role": "user", "content": "a cat"}, {"role": "assistant", "content": "red"}]
        example = Example("0", {"messages": turns}, target="red")
        return Task("t", "messages", "loss", [example], [], [example]), Prompt("default", "", {}, chat=True)
    if kind == "choice":
        example = Example("0", {"word": "cat"}, label="red")
        task = Task("t", "choice", "accuracy", [example], [], [example], labels=("red", "blue"))
        return task, Prompt("default", "{{ word }}", {"red": "red", "blue": "blue"}, chat=True)
    if kind == "preference":
        example = Example("0", {"word": "cat", "chosen": "red", "rejected": "blue"})
        task = Task("t", "preference", "preference", [example], [], [example], labels=("chosen", "rejected"))
        return task, Prompt("default", "{{ word }}", {}, chat=True)
    example = Example("0", {"word": "cat"}, target="red")
    return Task("t", "answer", "exact_match", [example], [], [example]), Prompt(
        "default", "{{ word }}", {}, chat=True
    )


@pytest.mark.parametrize("kind", ["choice", "answer", "messages", "preference"])
def test_what_a_chat_learns_as_its_end_ends_what_is_written(kind: str, chatting: Learner) -> None:
    task, prompt = chat_task(kind)
    encoded = Encoder(task, prompt, chatting.tokenizer, 100).encode(task.train[0])
    end = chatting.tokenizer.convert_tokens_to_ids("<|end|>")
    learned = encoded.candidates[0] if kind == "preference" else encoded.answer
    assert learned.tokens[-1] == end
    assert learned.tokens[learned.start : -1].count(end) == 0, "it ends once"
    assert chatting.tokenizer.decode(learned.tokens[learned.start : -1]).strip() == "red"
    if kind == "choice":
        assert all(one.tokens[-1] != end for one in encoded.candidates), "a score is the answer's alone"
    saying(chatting, *learned.tokens[learned.start :], *ids(chatting, "more"))
    (answer,) = chatting.write([encoded.prompt], Decoding(12))
    assert answer.text.strip() == "red"


def test_plain_prompts_end_with_eos_as_before(chatting: Learner) -> None:
    example = Example("0", {"word": "cat"}, target="red")
    task = Task("t", "answer", "exact_match", [example], [], [example])
    encoded = Encoder(task, Prompt("default", "{{ word }}", {}), chatting.tokenizer, 100).encode(example)
    assert encoded.answer.tokens[-1] == chatting.tokenizer.eos_token_id


def test_transformers_generate_ends_there_too(chatting: Learner) -> None:
    """The way of models whose state is no cache of keys and values."""
    chatting.layout = "padded"
    saying(chatting, *ids(chatting, "cat<|end|>dog"))
    (answer,) = chatting.write([(5, 6)], Decoding(12), margins=True)
    assert answer.text == "cat"
    assert len(answer.margins) == len(answer.tokens) == len(ids(chatting, "cat<|end|>"))


@pytest.mark.parametrize("layout", ["trie", "padded"])
def test_an_answer_written_without_numbers_says_so(layout: Any, chatting: Learner) -> None:
    chatting.layout = layout
    prompts = [(5, 6), (7, 8, 9)]
    assert all(answer.finite for answer in chatting.write(prompts, Decoding(3)))
    chatting.model.model.norm.weight.data[3] = torch.nan
    assert not any(answer.finite for answer in chatting.write(prompts, Decoding(3)))


def blind_to_padding(model: Any) -> None:
    """A model that takes padding for tokens, as some states do."""
    plain = model.forward

    def forward(attention_mask: Any = None, position_ids: Any = None, **named: Any) -> Any:
        if attention_mask is not None and attention_mask.dim() == 2:
            attention_mask = position_ids = None
        return plain(attention_mask=attention_mask, position_ids=position_ids, **named)

    model.forward = forward


def refusing_batches(model: Any) -> None:
    plain = model.forward

    def forward(input_ids: Any, **named: Any) -> Any:
        if len(input_ids) > 1:
            raise ValueError("one at a time")
        return plain(input_ids=input_ids, **named)

    model.forward = forward


@pytest.mark.parametrize("layout", ["trie", "padded"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (None, None),
        (blind_to_padding, "the logits of a batch differ by "),
        (refusing_batches, "ValueError: one at a time"),
    ],
)
def test_the_guard_examines_batches_of_answers(
    layout: Any, fault: Callable[[Any], None] | None, reason: str | None, chatting: Learner
) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(3, 290, (8, 12), generator=generator).tolist()
    sequences = [TokenSequence(tuple(row), 10) for row in drawn]
    prompts = [sequence.tokens[: 3 + k] for k, sequence in enumerate(sequences)]
    wanted = [chatting.generate([prompt], 6)[0] for prompt in prompts]
    chatting.layout = layout
    if fault:
        fault(chatting.model)
    why = guard.why_one_by_one(chatting, sequences)
    assert (why is None) == (reason is None)
    assert (why or "").startswith(reason or "")
    chatting.together = why is None
    assert chatting.generate(prompts, 6) == wanted
