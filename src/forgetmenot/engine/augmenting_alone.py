"""The augmenting model of a composed one as a model of its own, for what it learns by itself."""

from collections.abc import Sequence
from dataclasses import replace

from forgetmenot.engine.composed import tokens_of_paths
from forgetmenot.engine.learner import Learner
from forgetmenot.models.composition import bridge_of
from forgetmenot.prompting.encoded import TokenSequence


def augmenting_alone(
    learner: Learner, sequences: Sequence[TokenSequence]
) -> tuple[Learner, list[TokenSequence]]:
    """The augmenting model in use as a learner of its own, and sequences of the anchor in its tokens.

    What is predicted of a text is the rest behind the tokens that it shares with the text before; at its end
    stands the augmenting model's EOS, if the anchor's ends in a special token.
    """
    bridge = bridge_of(learner.model)
    assert bridge is not None
    alone = replace(learner, model=bridge.augmenting)
    if bridge.tokenizers is None:
        return alone, list(sequences)
    anchor, augmenting = bridge.tokenizers
    special = set(anchor.all_special_ids)
    wholes = tokens_of_paths(anchor, augmenting, [one.tokens for one in sequences])
    heads = tokens_of_paths(anchor, augmenting, [one.tokens[: one.start] for one in sequences])
    found = []
    for one, whole, head in zip(sequences, wholes, heads, strict=True):
        end = (augmenting.eos_token_id,) if one.tokens[-1] in special else ()
        shared = next(
            (k for k, pair in enumerate(zip(whole, head, strict=False)) if pair[0] != pair[1]), len(head)
        )
        found.append(TokenSequence(whole + end, max(1, min(shared, len(whole + end) - 1))))
    return replace(alone, tokenizer=augmenting), found
