"""Flat arrays give back the examples that were put into them."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forgetmenot.prompting import Encoded, EncodedExamples, RaggedExamples, TokenSequence

ids = st.lists(st.integers(0, 2**31 - 1), max_size=5).map(tuple)


@st.composite
def encoded(draw: st.DrawFn, choices: int) -> Encoded:
    shared = (draw(st.integers(0, 9)), *draw(ids))
    answers = [TokenSequence(shared + draw(ids), len(shared)) for _ in range(choices)]
    gold = draw(st.integers(0, choices - 1)) if choices else None
    learned = answers[gold].tokens if gold is not None else shared + draw(ids)
    return Encoded(
        id=draw(st.text(max_size=3)),
        candidates=tuple(answers),
        answer=TokenSequence((*learned, 1), len(shared)),
        prompt=draw(st.sampled_from([(), shared + draw(ids)])),
        gold=gold,
        cut=draw(st.integers(0, 3)),
    )


some = st.sampled_from([0, 1, 3]).flatmap(lambda choices: st.lists(encoded(choices), max_size=6))


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(some, st.integers(0, 6))
def test_what_goes_in_comes_out(examples: list[Encoded], at: int) -> None:
    packed = EncodedExamples.of(examples)
    assert list(packed) == examples
    assert packed[at:] == examples[at:]
    assert packed[::-2] == examples[::-2]
    assert len(packed) == len(examples)
    assert packed.sequence_count == sum(len(one.sequences) for one in examples)
    places = list(range(len(examples)))[::-2]
    assert list(packed.only(places)) == [examples[k] for k in places]
    joined = EncodedExamples.join([EncodedExamples.of(examples[:at]), EncodedExamples.of(examples[at:])])
    assert list(joined) == examples
    cuts = [example.cut for example in examples if example.cut]
    assert packed.truncated == joined.truncated == {"examples": len(cuts), "tokens": sum(cuts)}
    if examples:
        assert packed[-1] == examples[-1]


@st.composite
def ragged(draw: st.DrawFn) -> Encoded:
    """A choice among one or more candidates, each of which begins where it will."""
    candidates = []
    for _ in range(draw(st.integers(1, 4))):
        tokens = (draw(st.integers(0, 9)), *draw(ids))
        candidates.append(TokenSequence(tokens, draw(st.integers(1, len(tokens)))))
    gold, first = draw(st.integers(0, len(candidates) - 1)), candidates[0]
    return Encoded(
        id=draw(st.text(max_size=3)),
        candidates=tuple(candidates),
        answer=candidates[gold],
        prompt=first.tokens[: first.start],
        gold=gold,
        cut=draw(st.integers(0, 3)),
    )


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(ragged(), max_size=5), st.integers(0, 5))
def test_what_is_ragged_comes_out_as_well(examples: list[Encoded], at: int) -> None:
    packed = RaggedExamples.of(examples)
    assert list(packed) == examples
    assert packed[at:] == examples[at:]
    places = list(range(len(examples)))[::-2]
    assert list(packed.only(places)) == [examples[k] for k in places]
    assert packed.sequence_count == sum(len(one.sequences) for one in examples)
    cuts = [one.cut for one in examples if one.cut]
    assert packed.truncated == {"examples": len(cuts), "tokens": sum(cuts)}
    assert packed.left_out == 0
