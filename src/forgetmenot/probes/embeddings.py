"""The `embeddings` probe: whether the model's sentence embeddings still know similarity (STS)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from forgetmenot.embedding.prompt import EmbeddingSettings
from forgetmenot.embedding.senteval import SETS, read_pairs
from forgetmenot.embedding.similarity import cosines_of, similarity
from forgetmenot.errors import UserError, nearest
from forgetmenot.probes.shared.probe import Part, Probe, ProbeOptions
from forgetmenot.settings import Names, PositiveInt

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner


class EmbeddingsOptions(ProbeOptions, EmbeddingSettings):
    """What is measured, beside how a sentence becomes a vector."""

    sets: Names = Field(default=("stsb",), min_length=1)
    """`stsb` (STS-B's dev split, GLUE's task), `stsb-test`, `sts12` to `sts16`, `sick-r`; all but the first
    are read from SentEval's files."""
    limit: PositiveInt | None = None
    """So many pairs of each set, evenly spaced."""


class Embeddings(Probe):
    """Sentence embeddings: Spearman's correlation of cosines with the gold scores of STS, by PromptEOL.

    A sentence's embedding is the last layer's state of the last token of `This sentence : "…" means in one
    word:"`, with the authors' preparation of the text (Jiang et al., arXiv 2307.16645); see
    `forgetmenot.embedding`. STS-B's dev split replaces its test split, whose labels GLUE hides, unless
    SentEval's files are there. The interval is a bootstrap over pairs.
    """

    Options = EmbeddingsOptions
    delta = "sentence embedding"

    def __init__(self, options: EmbeddingsOptions, data_dir: Path | None) -> None:
        super().__init__(options, data_dir)
        for name in options.sets:
            if name not in SETS:
                raise UserError(f"evaluation.probes.embeddings: no set {name!r}. {nearest(name, SETS)}")
        self.pairs = [read_pairs(name, data_dir).sample(options.limit) for name in options.sets]
        if any(len(pairs.gold) < 3 for pairs in self.pairs):
            raise UserError("evaluation.probes.embeddings: it needs three pairs or more.")

    def measure(self, learner: Learner, stage: str, base: str, folder: Path) -> Sequence[Part]:
        """One part for each set."""
        found = cosines_of(learner, self.pairs, self.options)
        measured = [similarity(pairs, values) for pairs, values in zip(self.pairs, found, strict=True)]
        return [Part(one.name, one.value, "Spearman", one.n, one.interval, one.reason) for one in measured]
