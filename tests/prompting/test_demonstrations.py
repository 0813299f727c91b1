"""Demonstrations come from train, never are the asked example, and are written as that is."""

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forgetmenot.errors import UserError
from forgetmenot.prompting import Demonstrations, DemonstrationSettings, Encoder, Prompt, encode_cached
from forgetmenot.tasks.task import Example, Kind, Task

LABELS = ("no", "yes", "unclear")
CHOICES = {"no": "No", "yes": "Yes", "unclear": "not clear"}
PLAIN = Prompt("default", "Q: {{ q }}\nA:", CHOICES)
CHAT = Prompt("chat", "{{ q }}", CHOICES, separator="", chat=True, system="Be brief.")


def asked(id: str, q: str, label: str | None = "no") -> Example:
    return Example(id, {"q": q, "idx": id}, label=label)


def task_of(train: Sequence[Example], kind: Kind = "choice", **parts: Any) -> Task:
    return Task("mine", kind, "accuracy", train, **{"select": [], "score": [], "labels": LABELS, **parts})


TRAIN = [asked(f"train-{k}", f"question {k % 25}", LABELS[k % 3]) for k in range(30)]  # five stand twice
TASK = task_of(TRAIN)


def shown(task: Task, example: Example, **named: Any) -> list[Example]:
    return Demonstrations(task, DemonstrationSettings(**named)).before(example)


questions = st.integers(0, 9).map(lambda k: f"question {k}")
rows = st.lists(st.tuples(questions, st.sampled_from(LABELS)), min_size=15, max_size=60)
draws = st.fixed_dictionaries(
    {
        "count": st.integers(1, 6),
        "draw": st.sampled_from(["fixed", "each"]),
        "balanced": st.booleans(),
        "seed": st.integers(0, 3),
    }
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=rows, which=st.integers(0, 60), named=draws)
def test_never_the_asked_example_by_what_it_says(
    rows: list[tuple[str, str]], which: int, named: dict[str, Any]
) -> None:
    train = [asked(f"train-{k}", q, label) for k, (q, label) in enumerate(rows)]
    example = train[which] if which < len(train) else asked(f"score-{which}", f"question {which % 12}", "yes")
    others = [{q for q, of in rows if of == label} - {example.fields["q"]} for label in LABELS]
    if not all(len(of_label) >= named["count"] for of_label in others):  # it may, or may not, be enough
        with suppress(UserError):
            shown(task_of(train), example, **named)
        return
    found = shown(task_of(train), example, **named)
    said = [one.fields["q"] for one in found]
    assert len(said) == named["count"]
    assert example.fields["q"] not in said
    assert len(set(said)) == len(said)
    assert all(one in train for one in found)
    if named["balanced"]:
        counts = [Counter(one.label for one in found)[label] for label in LABELS]
        assert max(counts) - min(counts) <= 1
    assert found == shown(task_of(train), example, **named)


def test_fixed_are_the_same_for_all_but_those_that_are_shown() -> None:
    for count in (3, 4):
        usual = shown(TASK, asked("score-0", "something else"), count=count)
        for example in TRAIN:
            found = shown(TASK, example, count=count)
            if example.fields["q"] in {one.fields["q"] for one in usual}:
                kept = [one for one in usual if one.fields["q"] != example.fields["q"]]
                assert len([one for one in kept if one in found]) == count - 1
                assert Counter(one.label for one in found) == Counter(one.label for one in usual)
            else:
                assert found == usual


def test_each_is_drawn_by_what_is_asked_and_by_the_seed() -> None:
    def of(q: str, id: str = "score-0", seed: int = 0) -> list[str]:
        return [one.id for one in shown(TASK, asked(id, q), count=4, draw="each", seed=seed)]

    assert of("one") == of("one", "score-7")
    assert len({tuple(of(f"other {k}")) for k in range(20)}) > 15
    assert len({tuple(of("one", seed=seed)) for seed in range(20)}) > 15
    fixed = {tuple(e.id for e in shown(TASK, TRAIN[0], count=4, seed=seed)) for seed in range(20)}
    assert len(fixed) > 15


def test_a_count_for_each_task() -> None:
    some = DemonstrationSettings(count={"mine": 2})
    assert (some.count_for("mine"), some.count_for("other")) == (2, 0)
    assert len(Demonstrations(TASK, some).before(TRAIN[0])) == 2


@pytest.mark.parametrize(
    ("task", "named", "sentence"),
    [
        (task_of(TRAIN[:1] + TRAIN[2:3]), {}, r"task 'mine' has too few examples of 'yes' in train for 3"),
        (
            task_of(TRAIN[:2]),
            {"balanced": False},
            r"too few examples in train for 3 that differ .* a smaller count",
        ),
        (task_of([], score=TRAIN), {}, r"task 'mine' has no train split to take them from; give `count`"),
        (task_of(TRAIN, "text"), {}, r"task 'mine' is one of text, which has no prompt to put them in"),
        (task_of(TRAIN, "messages"), {}, r"is one of messages"),
    ],
)
def test_what_cannot_be_shown_is_said(task: Task, named: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError, match=f"demonstrations: .*{sentence}"):
        Demonstrations(task, DemonstrationSettings(count=3, **named))


# --- in the prompt


def with_shown(prompt: Prompt, task: Task = TASK, **named: Any) -> Prompt:
    return replace(prompt, demonstrations=Demonstrations(task, DemonstrationSettings(**named)))


@pytest.mark.parametrize("draw", ["fixed", "each"])
def test_a_demonstration_is_the_prompt_with_its_answer(tokenizer: Any, draw: str) -> None:
    prompt, example = with_shown(PLAIN, count=4, draw=draw), TRAIN[2]
    encoded = Encoder(TASK, prompt, tokenizer, 10**5).encode(example)
    assert prompt.demonstrations is not None
    solved = [
        f"Q: {one.fields['q']}\nA: {CHOICES[str(one.label)]}" for one in prompt.demonstrations.before(example)
    ]
    text = "\n\n".join([*solved, "Q: question 2\nA:"])
    assert tokenizer.decode(encoded.prompt, skip_special_tokens=True) == text


def test_in_chat_demonstrations_are_earlier_turns(tokenizer_named: Callable[[str], Any]) -> None:
    tokenizer, example = tokenizer_named("gpt2-like"), TRAIN[2]
    prompt = with_shown(CHAT, count=2)
    assert prompt.demonstrations is not None
    turns = [{"role": "system", "content": "Be brief."}]
    for one in prompt.demonstrations.before(example):
        turns.append({"role": "user", "content": one.fields["q"]})
        turns.append({"role": "assistant", "content": CHOICES[str(one.label)]})
    turns.append({"role": "user", "content": "question 2"})
    from forgetmenot.prompting.tokens import Tokens

    written = Tokens(tokenizer).conversation(turns, reply=True)
    encoded = Encoder(TASK, prompt, tokenizer, 10**5).encode(example)
    assert encoded.prompt == tuple(tokenizer(written, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize("prompt", [PLAIN, CHAT, replace(PLAIN, end="\n")], ids=["plain", "chat", "end"])
@pytest.mark.parametrize("draw", ["fixed", "each"])
def test_training_and_scoring_see_the_same_tokens(tokenizer: Any, prompt: Prompt, draw: str) -> None:
    """The same example in train, in select and in score: one prompt, and the gold candidate is learned."""
    whole = replace(TASK, select=TRAIN[:3], score=TRAIN[3:6])
    encoder = Encoder(whole, with_shown(prompt, count=3, draw=draw), tokenizer, 10**5)
    for example in TRAIN[:6]:
        learned, scored = encoder.encode(example), encoder.encode(replace(example, id="score-9"))
        assert learned.gold is not None
        end = tokenizer.get_added_vocab().get("<|eot|>") if prompt.chat else None
        end = tokenizer.eos_token_id if end is None else end
        assert learned.answer.tokens == (*scored.candidates[learned.gold].tokens, end)
        assert learned.answer.start == scored.candidates[learned.gold].start
        assert learned.prompt == scored.prompt


def test_a_free_answers_demonstrations_show_their_targets(tokenizer: Any) -> None:
    train = [Example(f"train-{k}", {"q": f"{k} + 1"}, target=f"{k + 1}") for k in range(9)]
    task = task_of(train, "answer", labels=())
    prompt = with_shown(Prompt("default", "{{ q }} ="), task, count=2)
    encoded = Encoder(task, prompt, tokenizer, 10**5).encode(train[0])
    first, second, last = tokenizer.decode(encoded.prompt, skip_special_tokens=True).split("\n\n")
    for text in (first, second):
        given_part, answer = text.split(" = ")
        assert int(given_part.removesuffix(" + 1")) + 1 == int(answer)
    assert last == "0 + 1 ="


def test_truncation_cuts_the_asked_example_alone(tokenizer: Any) -> None:
    prompt = with_shown(PLAIN, count=2)
    long = asked("score-0", "a very long question " * 20)
    encoder = Encoder(TASK, prompt, tokenizer, 10**5)
    head = encoder.encode(asked("score-1", "")).candidates
    length = max(len(one.tokens) for one in head) + 9
    encoded = Encoder(TASK, prompt, tokenizer, length).encode(long)
    assert encoded.cut
    assert prompt.demonstrations is not None
    text = tokenizer.decode(encoded.prompt, skip_special_tokens=True)
    for one in prompt.demonstrations.before(long):
        assert f"Q: {one.fields['q']}\nA: {CHOICES[str(one.label)]}\n\n" in text
    with pytest.raises(
        UserError, match=r"max_length is 12\. Raise `training.max_length`, set fewer `demonst"
    ):
        Encoder(TASK, prompt, tokenizer, 12).encode(long)


def test_what_is_shown_is_part_of_the_prompts_hash_and_of_the_cache(
    tokenizer_named: Callable[[str], Any], tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORGETMENOT_CACHE", str(tmp_path / "cache"))
    tokenizer = tokenizer_named("gpt2-like")
    changed = task_of([*TRAIN[1:], asked("train-30", "new", "no")])
    prompts = [
        PLAIN,
        with_shown(PLAIN, count=2),
        with_shown(PLAIN, count=3),
        with_shown(PLAIN, count=2, draw="each"),
        with_shown(PLAIN, count=2, balanced=False),
        with_shown(PLAIN, count=2, seed=1),
        with_shown(PLAIN, changed, count=2),
    ]
    assert len({prompt.hash for prompt in prompts}) == len(prompts)
    assert with_shown(PLAIN, count=2).hash == prompts[1].hash
    for count, prompt in enumerate(prompts, start=1):
        for _ in range(2):
            encoded = encode_cached(TASK, prompt, tokenizer, 10**4, TRAIN)
            assert list(encoded) == list(Encoder(TASK, prompt, tokenizer, 10**4).encode_all(TRAIN))
            assert len(list((tmp_path / "cache").iterdir())) == count
