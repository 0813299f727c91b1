"""Settings of generation, and a generated answer."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Decoding:
    """How answers are written.

    Attributes:
        max_new_tokens: Where an answer that has not ended is cut.
        stop: Strings that end an answer and are no part of its text.
        temperature: 0 takes the likeliest token; else tokens are drawn from softmax(logits / temperature).
        top_k: Draw among the k likeliest; 0 for all.
        top_p: Draw among the fewest tokens whose probability together reaches p.
    """

    max_new_tokens: int
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0


@dataclass(frozen=True)
class Answer:
    """What the model wrote after a prompt.

    Attributes:
        text: Without special tokens, up to the first stop string.
        tokens: All that were written, what ended the answer included.
        margins: How far the likeliest logit lies above the second, for each token; empty unless asked for.
        finite: Whether all logits that it was written by were numbers; else the text says nothing.
    """

    text: str
    tokens: tuple[int, ...]
    margins: tuple[float, ...] = ()
    finite: bool = True
