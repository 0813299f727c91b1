"""The answers of a chat in training: behind one another, so that what they share is computed once."""

import copy
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from forgetmenot.engine.batches import Shuffled, chats_among
from forgetmenot.engine.pack import positions
from forgetmenot.models.chat_templates import chat_template
from forgetmenot.models.settings import ModelSettings
from forgetmenot.prompting import Encoder, choose_prompt
from forgetmenot.prompting.encoded import Encoded, TokenSequence
from forgetmenot.tasks.chats import every_answer
from forgetmenot.tasks.task import Example, Task

PLAIN = chat_template(ModelSettings(name="any", chat_template="plain"))
TURNS = [
    {"role": "user" if k % 2 == 0 else "assistant", "content": f"{word} and what comes of it"}
    for k, word in enumerate(("one", "two", "three", "four", "five", "six", "seven", "eight"))
]
CHATS = [
    Example("train-0", {"messages": TURNS}),
    Example("train-1", {"messages": TURNS[2:4]}),
    Example("train-2", {"messages": TURNS[2:]}),
]


def encoded(tokenizer: Any, template: str | None, length: int = 10**5) -> list[Encoded]:
    """Every answer of the chats above, as training reads it."""
    writing = copy.deepcopy(tokenizer)
    writing.chat_template = template
    examples = every_answer(CHATS)
    task = Task("mine", "messages", "loss", examples, [], [])
    encoder = Encoder(task, choose_prompt(task, "default"), writing, length)
    return [encoder.encode(example) for example in examples]


def computed(examples: Sequence[Encoded]) -> int:
    return positions([one.answer for one in examples], "trie")


def test_a_chat_is_one_path_of_the_trie(tokenizer_named: Callable[[str], Any]) -> None:
    for name in ("llama3-like", "llama2-like", "gpt2-like"):
        examples = encoded(tokenizer_named(name), PLAIN)
        assert chats_among(examples) == ((0, 1, 2, 3), (5, 6, 7)), name  # the one between has one answer
        assert computed(examples[:4]) == len(examples[3].answer.tokens) - 1, name
        apart = sum(len(one.answer.tokens) - 1 for one in examples[:4])
        assert apart > 2 * computed(examples[:4]), "what it saves of a chat with four answers"


def test_a_template_that_leaves_something_out_makes_no_chats(
    tokenizer_named: Callable[[str], Any],
) -> None:
    forgets = (
        "{% for turn in messages %}<{{ turn.role }}>"
        "{{ turn.content if loop.last or turn.role == 'user' else turn.content[:3] }}</{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert chats_among(encoded(tokenizer_named("llama3-like"), forgets)) == ()


def test_what_only_begins_alike_is_no_chat() -> None:
    def example(tokens: tuple[int, ...], start: int) -> Encoded:
        return Encoded("e", (), TokenSequence(tokens, start), tokens[:start], None, 0)

    first = example((1, 2, 3), 2)
    assert chats_among([first, first]) == ()
    assert chats_among([first, example((1, 2, 3, 4), 2)]) == (), "the longer one learns the third token too"
    assert chats_among([first, example((1, 2, 3, 4), 3)]) == ((0, 1),)
    assert chats_among([first, example((9, 2, 3, 4), 3), example((1, 2, 3, 4), 3)]) == ()
    assert chats_among([]) == ()


@given(st.data())
def test_chats_stay_together_in_every_permutation(data: st.DataObject) -> None:
    lengths = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=12))
    begins = [sum(lengths[:k]) for k in range(len(lengths))]
    runs = [tuple(range(begin, begin + length)) for begin, length in zip(begins, lengths, strict=True)]
    chats = tuple(run for run in runs if len(run) > 1)
    size, seed = data.draw(st.integers(1, 6)), data.draw(st.integers(0, 99))
    batches = list(Shuffled(sum(lengths), size, 3, seed, chats))
    assert len(batches) == len(Shuffled(sum(lengths), size, 3, seed, chats))
    drawn = [k for batch in batches for k in batch]
    for epoch in (drawn[n * sum(lengths) : (n + 1) * sum(lengths)] for n in range(3)):
        assert sorted(epoch) == list(range(sum(lengths)))
        assert all(epoch[epoch.index(a) + 1] == b for chat in chats for a, b in pairwise(chat))
    without = [k for batch in Shuffled(sum(lengths), size, 3, seed) for k in batch]
    firsts = {chat[0] for chat in runs}
    assert [k for k in drawn if k in firsts] == [k for k in without if k in firsts], "the order is as drawn"
