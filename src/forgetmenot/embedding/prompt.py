"""The text that a model reads to embed a sentence: PromptEOL's one-word prompt, or the sentence alone.

Jiang et al. 2023, "Scaling Sentence Embeddings with Large Language Models" (arXiv 2307.16645). Their tables
were made by their code (kongds/scaling_sentemb), whose template has a blank before the first colon and none
before the last quote; the paper prints it the other way round.
"""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from forgetmenot.settings import Settings

TEMPLATES = {
    "code": ('This sentence : "', '" means in one word:"'),
    "paper": ('This sentence: "', '" means in one word: "'),
}
"""What stands before the sentence, and what behind it."""
BETWEEN = {"code": '".', "paper": '". '}
"""What follows a demonstration's word."""

DEMONSTRATIONS: dict[str, tuple[str, str]] = {
    "opt-125m": ("A man is smoking.", "Smoking"),
    "opt-350m": ("A man is playing on a guitar and singing.", "Music"),
    "opt-1.3b": ("relating to switzerland or its people.", "Swiss"),
    "opt-2.7b": ("A jockey riding a horse.", "Equestrian"),
    "opt-6.7b": ("The man is riding a horse.", "Horseback-riding"),
    "opt-13b": ("meat from a deer.", "Venison"),
    "opt-30b": ("The man is riding a motorcycle down the road.", "Motorcycling"),
    "opt-66b": ("of or relating to tutors or tutoring.", "Tutorial"),
}
"""The best demonstration on STS-B's dev split, of 300, by model (the authors' run_icl.sh)."""


def _by_name(value: Any) -> Any:
    """A name of the paper's stands for its demonstration."""
    if isinstance(value, str):
        if value not in DEMONSTRATIONS:
            raise ValueError(f"write [SENTENCE, WORD], or one of {', '.join(DEMONSTRATIONS)}")
        return DEMONSTRATIONS[value]
    return value


Words = Annotated[str, Field(pattern=r"\S")]
Demonstration = Annotated[
    tuple[Words, Words], BeforeValidator(_by_name, json_schema_input_type=str | tuple[str, str])
]
"""A sentence and its word, or the name of a model whose best one is in the paper."""


class EmbeddingSettings(Settings):
    """How a sentence becomes a vector."""

    pooling: Literal["prompt", "mean", "last"] = "prompt"
    """`prompt`: the last layer's state of the last token of the one-word prompt (PromptEOL). `mean`: the mean
    of the states of all tokens of the sentence alone, BOS included where the tokenizer writes one. `last`:
    the state of its last token."""
    template: Literal["code", "paper"] = "code"
    """PromptEOL's as in its authors' code, which made their tables, or as their paper prints it."""
    demonstration: Demonstration | None = None
    """A sentence and its word, put in front of the prompt: ["A jockey riding a horse.", "Equestrian"], or
    `opt-2.7b`, whose it is in the paper."""

    @model_validator(mode="after")
    def _of_a_prompt(self) -> "EmbeddingSettings":
        if self.demonstration is not None and self.pooling != "prompt":
            raise ValueError(
                f"demonstration stands in front of the one-word prompt, which pooling: {self.pooling} has "
                "not; leave one of the two out"
            )
        return self


def around(settings: EmbeddingSettings) -> tuple[str, str]:
    """What stands before and behind a sentence, the demonstration included."""
    if settings.pooling != "prompt":
        return "", ""
    before, behind = TEMPLATES[settings.template]
    head = ""
    if settings.demonstration is not None:
        sentence, word = settings.demonstration
        head = f"{before}{prepared(sentence)}{behind}{word}{BETWEEN[settings.template]}"
    return head + before, behind


def asked(text: str, settings: EmbeddingSettings) -> str:
    """A sentence as the model reads it."""
    before, behind = around(settings)
    return before + (prepared(text) if settings.pooling == "prompt" else " ".join(text.split())) + behind


def prepared(text: str) -> str:
    """A sentence as PromptEOL's evaluation writes it.

    One blank where there was white space, a full stop behind what ends in none of . ? " ', single quotes for
    double ones, and a full stop for a final question mark.
    """
    text = " ".join(text.split())
    if text and text[-1] not in ".?\"'":
        text += "."
    text = text.replace('"', "'")
    return f"{text[:-1]}." if text.endswith("?") else text
