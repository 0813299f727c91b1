"""The `embeddings` probe: whether the model's sentence embeddings still know similarity (STS-B)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from forgetmenot.errors import UserError
from forgetmenot.probes.shared.probe import NOT_FINITE, Part, Probe, ProbeOptions
from forgetmenot.prompting.tokens import tokens_of
from forgetmenot.settings import PositiveInt
from forgetmenot.tasks import load_tasks

if TYPE_CHECKING:
    from torch import Tensor

    from forgetmenot.engine.learner import Learner

TEMPLATES = {
    "code": 'This sentence : "{}" means in one word:"',
    "paper": 'This sentence: "{}" means in one word: "',
}
"""As the authors' code has it, and as their paper prints it: two blanks differ."""
BETWEEN = {"code": '".', "paper": '". '}
"""What follows a demonstration's word."""
RESAMPLES = 1000
SEED = 20230731


class EmbeddingsOptions(ProbeOptions):
    """How sentences become prompts.

    Attributes:
        limit: Take the first so many pairs of STS-B's dev split.
        demonstration: A sentence and its word, put in front: ["A jockey riding a horse.", "Equestrian"].
        template: PromptEOL's as in its authors' code, which made their tables, or as their paper prints it.
    """

    limit: PositiveInt | None = None
    demonstration: tuple[str, str] | None = None
    template: Literal["code", "paper"] = "code"


class Embeddings(Probe):
    """Sentence embeddings: Spearman's correlation of cosines with STS-B's gold scores, by PromptEOL.

    A sentence's embedding is the last layer's state of the last token of `This sentence : "…" means in one
    word:"`, with the authors' preparation of the text (Jiang et al., arXiv 2307.16645; `_` for a blank in
    their code, kongds/scaling_sentemb). STS-B's dev split replaces its test split, whose labels GLUE
    hides. The interval is a bootstrap over pairs.
    """

    Options = EmbeddingsOptions
    delta = "sentence embedding"

    def __init__(self, options: EmbeddingsOptions, data_dir: Path | None) -> None:
        super().__init__(options, data_dir)
        (task,) = load_tasks(["stsb"], data_dir)
        self.pairs = [
            (str(one.fields["sentence1"]), str(one.fields["sentence2"]), float(str(one.target)))
            for one in task.score[: options.limit]
        ]
        if len(self.pairs) < 3:
            raise UserError("evaluation.probes.embeddings: it needs three pairs or more.")

    def measure(self, learner: Learner, stage: str, base: str, folder: Path) -> Sequence[Part]:
        """One part."""
        from scipy.stats import spearmanr

        texts = list(dict.fromkeys(text for pair in self.pairs for text in pair[:2]))
        prompts = tokens_of(learner.tokenizer).plain([asked(text, self.options) for text in texts])
        states = dict(zip(texts, learner.hidden(prompts), strict=True))
        cosines = np.array([_cosine(states[one], states[other]) for one, other, _ in self.pairs])
        gold = np.array([score for *_, score in self.pairs])
        if not np.isfinite(cosines).all():
            return [Part("stsb", None, "Spearman", len(gold), reason=NOT_FINITE)]
        value = float(spearmanr(cosines, gold).statistic)
        if not np.isfinite(value):
            return [
                Part("stsb", None, "Spearman", len(gold), reason="all cosines, or all gold scores, are equal")
            ]
        return [Part("stsb", value, "Spearman", len(gold), _interval(cosines, gold))]


def asked(text: str, options: EmbeddingsOptions) -> str:
    """A sentence as the model sees it, behind the demonstration if there is one."""
    template, head = TEMPLATES[options.template], ""
    if options.demonstration is not None:
        sentence, word = options.demonstration
        head = f"{template.format(prepared(sentence))}{word}{BETWEEN[options.template]}"
    return head + template.format(prepared(text))


def prepared(text: str) -> str:
    """A sentence as PromptEOL's evaluation writes it: a full stop at its end, and no double quotes."""
    text = text.strip()
    if text and text[-1] not in ".?!\"'":
        text += "."
    text = text.replace('"', "'")
    return f"{text[:-1]}." if text.endswith("?") else text


def _cosine(one: Tensor, other: Tensor) -> float:
    import torch

    return float(torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=0))


def _interval(cosines: np.ndarray, gold: np.ndarray) -> tuple[float, float] | None:
    from scipy.stats import spearmanr

    draw = np.random.default_rng(SEED)
    values = []
    for _ in range(RESAMPLES):
        rows = draw.integers(len(gold), size=len(gold))
        if np.ptp(gold[rows]) > 0 and np.ptp(cosines[rows]) > 0:
            values.append(float(spearmanr(cosines[rows], gold[rows]).statistic))
    if not values:
        return None
    low, high = np.percentile(values, [2.5, 97.5])
    return float(low), float(high)
