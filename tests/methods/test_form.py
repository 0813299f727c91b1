"""What a task's prompts have in common, and examples that are read from what a model has written."""

import json
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forgetmenot.engine.decoding import Decoding
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage
from forgetmenot.methods.shared.form import Form, write_answers, write_bodies
from forgetmenot.prompting import Encoded, TokenSequence
from tests.written import BOS, END, Writes, choice, target


def test_it_is_what_all_prompts_share() -> None:
    form = Form.of("t", [choice([30], 0), choice([31, 32, 33], 1), choice([31], 1)], BOS)
    assert form == Form((), (5, 6), (8, 9), ((20,), (21, 22)), (END,), 3, 3, False)
    assert Form.from_plain(json.loads(json.dumps(form.plain()))) == form


def test_what_begins_a_text_stands_apart() -> None:
    rows = [choice([30], 0, head=[BOS, 5]), choice([31], 0, head=[BOS, 5])]
    assert Form.of("t", rows, BOS).begin == (BOS,)
    assert Form.of("t", rows, BOS).head == (5,)
    turns = [choice([30], 0, head=[BOS, 5], tail=[BOS, 9]), choice([31], 0, head=[BOS, 5], tail=[BOS, 9])]
    assert Form.of("t", turns, BOS).begin == ()  # a chat whose turns begin with it
    assert Form.of("t", turns, BOS).head == (BOS, 5)


@given(st.lists(st.lists(st.integers(30, 33), max_size=4), min_size=2, max_size=6, unique_by=tuple))
def test_every_example_is_one_of_its_form(bodies: list[list[int]]) -> None:
    """Bodies that begin or end alike make head and tail longer, and an empty one stays between them."""
    rows = [choice(body, k % 2) for k, body in enumerate(bodies)]
    form = Form.of("t", rows, None)
    for row in rows:
        assert row.prompt[: len(form.head)] == form.head
        assert len(row.prompt) >= len(form.head) + len(form.tail)
        body = row.prompt[len(form.head) : len(row.prompt) - len(form.tail)]
        assert len(body) <= form.room
        assert form.example(row.id, body, (), row.gold) == row


def test_an_answer_of_free_text_keeps_its_own_tokens() -> None:
    form = Form.of("t", [target([30], [40, END]), target([31], [40, 41, END]), target([32], [40])], None)
    assert (form.answers, form.closing, form.reply) == ((), (END,), 3)
    assert form.example("new", (35,), (41, END)) == target([35], [41, END]).__class__(
        "new", (), TokenSequence((35, 8, 41, END), 2), (35, 8), None, 0
    )


REFUSED: dict[str, tuple[list[Encoded], str]] = {
    "plain text": ([Encoded("a", (), TokenSequence((1, 2), 1), (), None, 0)], "is plain text"),
    "one prompt": ([choice([30], 0), choice([30], 1)], "one prompt for all its rows"),
    "no tail": ([target([30], [40], []), target([31], [40], [])], "end with text of their own"),
    "other choices": ([choice([30], 0), target([31], [40], [8, 9])], "other choices in each row"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_form_is_refused(case: str) -> None:
    rows, sentence = REFUSED[case]
    with pytest.raises(UserError, match=sentence):
        Form.of("t", rows, None)


def test_a_body_is_what_stands_before_the_tail() -> None:
    form = Form.of("t", [choice([30], 0), choice([31, 32], 1)], None)
    learner = Writes(
        [40, 8, 9],  # a body
        [8, 9],  # nothing before the tail
        [40, 41, 42, 43],  # no tail
        [END],  # an end
        [40, END, 8, 9],  # an end before the tail
        [40, 8, 8, 9],  # the tail's first token in the body
    )
    bodies = write_bodies(learner, form, [(7,)] * 6, range(6), temperature=0.5, top_k=3, top_p=0.9)
    assert bodies == [(40,), None, None, None, None, (40, 8)]
    prompt, decoding = learner.asked[0]
    assert prompt == (7, 5, 6)
    assert decoding == Decoding(2 + 2, stop=("hi",), temperature=0.5, top_k=3, top_p=0.9)


def test_where_texts_are_cut_a_long_one_is_cut_too() -> None:
    rows = [choice([30, 31], 0), replace(choice([32, 33], 1), cut=7)]
    learner = Writes([40, 41, 42, 43], [40, 41, END], [40, END], [40, 8, 9])
    bodies = write_bodies(learner, Form.of("t", rows, None), [()] * 4, range(4))
    assert bodies == [(40, 41), (40, 41), None, (40,)]


def test_in_a_chat_it_ends_with_the_users_turn() -> None:
    """The end of that turn ends what is written, and what stands behind it is not asked for."""
    rows = [choice([30], 0, tail=[8, END, 11, 12]), choice([31], 0, tail=[8, END, 11, 12])]
    learner = Writes([40, 8, END], [40, END])
    assert write_bodies(learner, Form.of("t", rows, None), [()] * 2, range(2)) == [(40,), None]
    assert learner.asked[0][1].stop == ()


def test_an_answer_is_a_label_only_if_it_ends() -> None:
    form = Form.of("t", [choice([30], 0), choice([31], 1)], None)
    learner = Writes([21, 22, END], [21, 22], [21, END], [20, END])
    answers = write_answers(learner, form, [(1,)] * 4, range(4), temperature=1.0)
    assert [form.label(answer, learner.ends) for answer in answers] == [1, None, None, 0]


def test_a_real_model_writes_in_the_form(learner: Learner, stage: Stage) -> None:
    """Draws follow from their seeds alone; a tail that the model likes ends what it writes."""
    form = Form.of("size", stage.data["size"], learner.tokenizer.bos_token_id)
    assert learner.tokenizer.decode(list(form.head)).startswith("Word:")
    assert learner.tokenizer.decode(list(form.tail)).endswith("Kind:")
    contexts = [tuple(learner.tokenizer.encode(f"number {k}. ")) for k in range(12)]
    drawn = learner.write(
        [(*one, *form.head) for one in contexts], Decoding(8, temperature=1.0, top_k=2), seeds=range(12)
    )
    liked = Counter(token for answer in drawn for token in answer.tokens[1:] if token not in learner.ends)
    form = replace(form, tail=(liked.most_common(1)[0][0],), room=8)
    together = write_bodies(learner, form, contexts, range(12), top_k=2)
    alone = [write_bodies(learner, form, [one], [k], top_k=2)[0] for k, one in enumerate(contexts)]
    assert together == alone
    assert any(together)
    assert all(form.tail[0] not in body for body in together if body)
