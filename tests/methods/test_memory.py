"""What is remembered: whole examples, evenly drawn, chosen as the definitions say."""

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from forgetmenot.engine.learner import Learner
from forgetmenot.methods.shared.memory import Keep, choose, even_shares, from_plain, herd, to_plain
from forgetmenot.prompting import Encoded, TokenSequence

Adapted = Callable[..., Learner]


@given(st.integers(0, 60), st.lists(st.integers(0, 20), min_size=1, max_size=6))
def test_a_draw_is_as_even_as_what_there_is_allows(count: int, available: list[int]) -> None:
    shares = even_shares(count, available)
    assert sum(shares) == min(count, sum(available))
    assert all(0 <= share <= limit for share, limit in zip(shares, available, strict=True))
    for share, limit in zip(shares, available, strict=True):
        assert share == limit or share >= max(shares) - 1


def test_herding_is_the_greedy_minimum_of_its_definition() -> None:
    draw = np.random.default_rng(0)
    features = draw.normal(size=(30, 5)) + 1
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    expected: list[int] = []
    for k in range(1, 13):
        distance = {
            row: np.linalg.norm(unit.mean(0) - (unit[row] + unit[expected].sum(0)) / k)
            for row in set(range(30)) - set(expected)
        }
        expected.append(min(distance, key=distance.__getitem__))
    assert herd(torch.tensor(features), 12) == expected
    assert sorted(herd(torch.tensor(features), 30)) == list(range(30))


def _uneven(examples: list[Encoded]) -> list[Encoded]:
    """Two of one label and the six of the other."""
    return [*[e for e in examples if e.gold == 0][:2], *[e for e in examples if e.gold == 1]]


@pytest.mark.parametrize("keep", ["random", "class-balanced", "herding"])
def test_what_is_kept_is_there_once(
    keep: Keep, adapted: Adapted, few_examples: Mapping[str, list[Encoded]]
) -> None:
    examples = _uneven(few_examples["near"])
    for count in (0, 1, 5, 8, 20):
        chosen = choose(adapted(), examples, count, keep, np.random.default_rng(0))
        assert len(chosen) == min(count, len(examples))
        assert {e.id for e in chosen} <= {e.id for e in examples}
        assert len({e.id for e in chosen}) == len(chosen)


@pytest.mark.parametrize("keep", ["class-balanced", "herding"])
def test_each_label_has_its_part_while_it_lasts(
    keep: Keep, adapted: Adapted, few_examples: Mapping[str, list[Encoded]]
) -> None:
    learner, draw = adapted(), np.random.default_rng(0)
    examples = _uneven(few_examples["near"])
    assert Counter(e.gold for e in choose(learner, examples, 4, keep, draw)) == {0: 2, 1: 2}
    assert Counter(e.gold for e in choose(learner, examples, 7, keep, draw)) == {0: 2, 1: 5}


def test_herding_takes_the_embedding_of_the_prompt(
    adapted: Adapted, few_examples: Mapping[str, list[Encoded]]
) -> None:
    learner, examples = adapted(), [e for e in few_examples["far"] if e.gold == 0]
    with torch.no_grad():
        states = [
            learner.model(input_ids=torch.tensor([e.prompt]), output_hidden_states=True).hidden_states[-1]
            for e in examples
        ]
    order = herd(torch.stack([state[0, -1] for state in states]), 3)
    chosen = choose(learner, examples, 3, "herding", np.random.default_rng(0))
    assert [e.id for e in chosen] == [examples[k].id for k in order]


def test_random_is_uniform(adapted: Adapted, few_examples: Mapping[str, list[Encoded]]) -> None:
    learner, examples = adapted(), few_examples["near"]
    draw = np.random.default_rng(0)
    counts = Counter(e.id for _ in range(2000) for e in choose(learner, examples, 3, "random", draw))
    assert min(counts[e.id] for e in examples) > 420  # 500 are expected; the standard deviation is 19
    assert max(counts.values()) < 580


EXAMPLES = {
    "choice": lambda e: e,
    "text": lambda e: dataclasses.replace(e, candidates=(), prompt=(), gold=None),
    "merged boundary": lambda e: dataclasses.replace(e, prompt=(*e.prompt, 17), cut=3),
    "one token of head": lambda e: dataclasses.replace(
        e, candidates=(), gold=None, answer=TokenSequence((1, 2, 3), 1)
    ),
}


@pytest.mark.parametrize("kind", EXAMPLES)
def test_an_example_comes_back_whole_from_json(kind: str, few_examples: Mapping[str, list[Encoded]]) -> None:
    example = EXAMPLES[kind](few_examples["near"][3])
    assert from_plain(json.loads(json.dumps(to_plain(example)))) == example


def test_a_field_that_an_example_gains_must_be_remembered_too() -> None:
    # A preference's reference is that of the stage that trains on it, and what a template leaves out is said
    # of the task's own stage alone: these are not remembered.
    known = ["id", "candidates", "answer", "prompt", "gold", "cut", "reference", "left_out"]
    assert [field.name for field in dataclasses.fields(Encoded)] == known
