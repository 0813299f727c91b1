"""Where a receipt stands in a prompt, and how an interpreter's answer is read."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest

from forgetmenot.errors import UserError
from forgetmenot.prompting import Encoder, Prompt, bundled_prompts, known_prompts
from forgetmenot.prompting.receipt_prompt import Interpretation, read_interpretation, with_receipt
from forgetmenot.tasks import Example, Task

RECEIPT = {
    "receipt_label": "pos",
    "receipt_confidence": "0.967",
    "receipt_model": "334M-parameter model",
    "receipt_source": "sst2",
}
CHOICES = {"neg": "bad", "pos": 'good "indeed"'}
INTRODUCTION = (
    "A 334M-parameter model was fine-tuned on the sst2 dataset. "
    "Its prediction is a reference that may help you to judge.\n\n"
)
SHOWN = "Model's Prediction: good \"indeed\"\nModel's Confidence: 0.967"
FIELDS = {"text": "A film {{ of }} love.", **RECEIPT}


def rendered(template: str, fields: dict[str, Any] = FIELDS, **others: Any) -> str:
    options = {key: others.pop(key) for key in ("confidence", "interpret") if key in others}
    return with_receipt(Prompt("p", template, CHOICES, **others), **options).render(fields)


@pytest.mark.parametrize(
    ("template", "chat", "expected"),
    [
        ("Text: {{ text }}\nKind:\n", False, f"Text: A film {{{{ of }}}} love.\n{SHOWN}\nKind:"),
        ("{{ text }} =", False, f"{SHOWN}\nA film {{{{ of }}}} love. ="),
        ("Which?\n{{ text }}", True, f"Which?\nA film {{{{ of }}}} love.\n{SHOWN}"),
        ("{{ text }}\nAnswer:", True, f"A film {{{{ of }}}} love.\n{SHOWN}\nAnswer:"),
        (
            "{% if text %}\n{{ text }}\n{% endif %}Kind:",
            False,
            f"{SHOWN}\n\nA film {{{{ of }}}} love.\nKind:",
        ),
    ],
)
def test_a_receipt_stands_before_the_line_that_asks(template: str, chat: bool, expected: str) -> None:
    assert rendered(template, chat=chat) == INTRODUCTION + expected


def test_without_the_confidence_only_its_line_is_gone() -> None:
    whole, less = rendered("{{ text }}\nKind:"), rendered("{{ text }}\nKind:", confidence=False)
    assert whole.replace("Model's Confidence: 0.967\n", "") == less
    assert whole != less


def test_the_interpreter_asks_for_its_format_instead_of_the_plain_answer() -> None:
    text = rendered("{{ text }}\nKind:", interpret=True)
    assert text.startswith(INTRODUCTION + "A film {{ of }} love.\n" + SHOWN + "\nAnswer in this format:\n")
    assert '3. Final Prediction: one of bad, good "indeed".' in text
    assert "Kind:" not in text


@pytest.mark.parametrize("template", ["{{ text }} =", "{% if text %}\n{{ text }}\n{% endif %}Kind:"])
def test_the_interpreter_never_takes_the_place_of_the_input(template: str) -> None:
    text = rendered(template, interpret=True)
    assert text.index("A film {{ of }} love.") < text.index(SHOWN) < text.index("Answer in this format:")


def test_everything_else_of_a_prompt_stays() -> None:
    prompt = Prompt("p", "{{ text }}\nKind:", CHOICES, separator="", chat=True, system="Be brief.", end="\n")
    before, after = asdict(prompt), asdict(with_receipt(prompt))
    assert {key for key in before if before[key] != after[key]} == {"template", "truncate"}
    assert with_receipt(prompt).hash != prompt.hash
    assert with_receipt(prompt, confidence=False).hash != with_receipt(prompt).hash


@pytest.mark.parametrize("task", list(known_prompts()))
def test_every_bundled_prompt_can_show_a_receipt(task: str) -> None:
    for prompt in bundled_prompts(task).values():
        label = next(iter(prompt.choices))
        fields = {**dict.fromkeys(prompt.fields, "VALUE"), **RECEIPT, "receipt_label": label}
        text = with_receipt(prompt).render(fields)
        assert f"Model's Prediction: {prompt.choices[label]}\nModel's Confidence: 0.967" in text
        if not prompt.chat:
            assert text.endswith(prompt.render(fields).splitlines()[-1])


def test_the_receipt_is_never_cut(tokenizer_named: Callable[[str], Any]) -> None:
    tokenizer = tokenizer_named("gpt2-like")
    prompt = with_receipt(Prompt("p", "{{ text }}\nKind:", CHOICES))
    rows = [Example("score-0", {**FIELDS, "text": "words " * 300}, "pos")]
    task = Task("t", "choice", "accuracy", [], [], rows, labels=("neg", "pos"))
    whole = Encoder(task, prompt, tokenizer, 10_000).encode(rows[0])
    short = Encoder(task, prompt, tokenizer, len(whole.prompt) - 500).encode(rows[0])
    text = tokenizer.decode(short.prompt)
    assert short.cut >= 500
    assert text.startswith(INTRODUCTION + "words")
    assert text.endswith(SHOWN + "\nKind:")


def test_a_receipt_that_is_not_there_is_said() -> None:
    with pytest.raises(UserError, match="receipt_model"):
        rendered("{{ text }}\nKind:", {"text": "a"})


WELL = '1. Influence Degree: 0.3\n2. Critical Features: "of love"\n3. Final Prediction: Good "indeed".'


@pytest.mark.parametrize(
    ("text", "label", "influence", "features"),
    [
        (WELL, "pos", 0.3, "of love"),
        ("**Influence Degree**: 1\n**Final Prediction**: **bad**", "neg", 1.0, None),
        ("influence degree: 0.75, since ...\ncritical features:\nfinal prediction: badly", None, 0.75, None),
        ("Influence Degree: 10\nFinal Prediction: bad, I think", "neg", None, None),
        ("Influence Degree: 1.5\nFinal Prediction: either", None, None, None),
        ("Influence Degree: high", None, None, None),
        ("bad", None, None, None),
        ("", None, None, None),
    ],
)
def test_an_interpreters_answer_is_read(
    text: str, label: str | None, influence: float | None, features: str | None
) -> None:
    assert read_interpretation(text, CHOICES) == Interpretation(label, influence, features)


def test_of_choices_that_begin_alike_the_longer_is_tried_first() -> None:
    choices = {"a": "not", "b": "not the same"}
    assert read_interpretation("Final Prediction: not the same", choices).label == "b"
    assert read_interpretation("Final Prediction: not", choices).label == "a"
