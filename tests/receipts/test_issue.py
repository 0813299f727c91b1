"""A task gets receipts: what the fields hold, what the small model reads, and what it never sees."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from forgetmenot.errors import UserError
from forgetmenot.metrics.metric import Floats
from forgetmenot.prompting import choose_prompt
from forgetmenot.receipts.classifier import Labels, Texts
from forgetmenot.receipts.fit import Receipt, Receipts, issue_receipts, receipted
from forgetmenot.receipts.settings import ReceiptSettings
from forgetmenot.receipts.tfidf import TfidfClassifier
from forgetmenot.tasks import Example, Task

TFIDF = ReceiptSettings(model="tfidf")
PROMPTS = {
    "default": {"template": "{{ text }}\nKind:", "choices": {"bad": "poor", "good": "great"}},
    "other": {"template": "{{ text }} {{ id }}:", "choices": {"bad": "no", "good": "yes"}},
}


def task(name: str = "mine", n: int = 40, **others: Any) -> Task:
    words = {"bad": ("dull", "poor"), "good": ("fine", "great")}

    def examples(split: str, count: int, first: int) -> list[Example]:
        return [
            Example(
                f"{split}-{k}",
                {"id": f"row {k}", "text": f"{words[label][k % 2]} {first + k}"},
                label,
            )
            for k in range(count)
            for label in ("good" if k % 3 else "bad",)
        ]

    splits = examples("train", n, 0), examples("select", 12, 1000), examples("score", 12, 2000)
    return Task(name, "choice", "accuracy", *splits, labels=("bad", "good"), prompts=PROMPTS, **others)


def issued(one: Task, source: Task | None = None, **settings: Any) -> Receipts:
    return issue_receipts(one, source or one, ReceiptSettings(model="tfidf", **settings), TfidfClassifier)


def test_receipts_are_right_where_words_tell() -> None:
    found = issued(task())
    assert found.described(task())["accuracy"] == {"train": 1.0, "select": 1.0, "score": 1.0}
    assert all(0.5 < one.confidence <= 1 for rows in found.given.values() for one in rows)
    assert found.calibrated_on == 12
    assert Receipts.from_json(found.to_json()) == found


def test_the_labels_of_score_change_nothing() -> None:
    one = task()
    turned = [replace(e, label="good" if e.label == "bad" else "bad") for e in one.score]
    found, other = issued(one), issued(replace(one, score=turned))
    assert found.given == other.given
    assert found.temperature == other.temperature


def test_the_labels_of_select_move_the_temperature_alone() -> None:
    one = task()
    turned = [replace(e, label="good" if e.label == "bad" else "bad") for e in one.select]
    found, other = issued(one), issued(replace(one, select=turned))
    for split, rows in found.given.items():
        assert [r.label for r in rows] == [r.label for r in other.given[split]]
    assert other.temperature > found.temperature


def test_the_small_model_reads_what_the_default_prompt_names() -> None:
    seen: list[Texts] = []

    class Reader(TfidfClassifier):
        def fit(self, texts: Sequence[Texts], labels: Labels, classes: int) -> None:
            seen.extend(texts)
            super().fit(texts, labels, classes)

    one = task()
    issue_receipts(one, one, TFIDF, Reader)
    assert {text for (text,) in seen} == {e.fields["text"] for e in one.train}


def test_fields_and_prompts_hold_the_receipt() -> None:
    one = task(n=2)
    given = {
        split: [Receipt("good", 0.96651), Receipt("bad", 0.5)] + [Receipt("bad", 1.0)] * (len(rows) - 2)
        for split, rows in (("train", one.train), ("select", one.select), ("score", one.score))
    }
    with_them = receipted(one, Receipts("tfidf", "12M-parameter model", "sst2", 5, 1.0, 12, 0.1, given))
    for examples in (with_them.train, with_them.select, with_them.score):
        assert examples[0].fields["receipt_label"] == "good"
        assert [e.fields["receipt_confidence"] for e in examples[:2]] == ["0.967", "0.500"]
    assert [replace(e, fields={}) for e in with_them.train] == [replace(e, fields={}) for e in one.train]
    texts = [
        choose_prompt(with_them, name).render(with_them.train[0].fields) for name in ("default", "other")
    ]
    assert "Model's Prediction: great\nModel's Confidence: 0.967\nKind:" in texts[0]
    assert "Model's Prediction: yes\nModel's Confidence: 0.967\ndull 0 row 0:" in texts[1]
    assert all(text.startswith("A 12M-parameter model was fine-tuned on the sst2 dataset.") for text in texts)
    without = receipted(one, Receipts("tfidf", "m", "s", 5, 1.0, 12, 0.1, given), confidence=False)
    assert "0.967" not in choose_prompt(without, "default").render(without.train[0].fields)


def test_another_task_of_the_same_labels_is_answered_out_of_domain() -> None:
    source = task("source")
    rows = [
        Example("a", {"review": "dull 77"}, "good"),
        Example("b", {"review": "fine 78"}, "good"),
        Example("c", {"review": "great 1"}, "good"),
    ]
    prompt = {"default": {"template": "{{ review }}:", "choices": {"good": "+", "bad": "-"}}}
    other = Task("other", "choice", "accuracy", [], [], rows, labels=("good", "bad"), prompts=prompt)
    found = issued(other, source)
    assert found.source == "source"
    assert [one.label for one in found.given["score"]] == ["bad", "good", "good"]
    assert found.given["train"] == []


def test_a_task_that_shares_its_train_split_is_answered_out_of_fold() -> None:
    """As mnli_mismatched does with mnli: the model of all of train must not answer its own rows."""
    fits: list[set[str]] = []

    class Spy(TfidfClassifier):
        def fit(self, texts: Sequence[Texts], labels: Labels, classes: int) -> None:
            fits.append({text for (text,) in texts})
            super().fit(texts, labels, classes)

        def scores(self, texts: Sequence[Texts]) -> Floats:
            assert not fits[-1] & {text for (text,) in texts}
            return super().scores(texts)

    source = task("source")
    issue_receipts(replace(source, name="twin", select=[]), source, TFIDF, Spy)
    assert len(fits) == 6


def test_a_limit_is_a_sample_and_the_rest_is_answered_too() -> None:
    one = task(n=60)
    found = issued(one, limit=20)
    assert len(found.given["train"]) == 60
    assert found.parameters < issued(one).parameters


def test_what_takes_no_receipt_is_said() -> None:
    one = task()
    graded = replace(one, name="graded", metric="spearman")
    free = replace(one, name="free", kind="answer", metric="exact_match")
    for wrong in (graded, free):
        with pytest.raises(UserError, match=f"task '{wrong.name}' does not choose among labels"):
            issued(wrong)
    with pytest.raises(UserError, match=r"'mine' has no train split .* receipts.sources.mine=sst2"):
        issued(replace(one, train=[]))
    with pytest.raises(UserError, match="'mine' has the labels bad, good, but 'three' has bad, good, odd"):
        issued(one, replace(one, name="three", labels=("bad", "good", "odd")))
    pair = {"default": {"template": "{{ text }} {{ id }}", "choices": {"good": "+", "bad": "-"}}}
    with pytest.raises(UserError, match="examples of 'two' and 'mine' have different numbers of texts"):
        issued(replace(one, name="two", prompts=pair), one)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"folds": 3}, "folds has no effect without receipts.model"),
        ({"model": "tfidf", "epochs": 2}, "epochs is for an encoder by hub id or directory, not for tfidf"),
        ({"model": "tfidf", "folds": 1}, "greater than or equal to 2"),
    ],
)
def test_a_setting_without_effect_is_an_error(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        ReceiptSettings(**given)


def test_settings_that_are_written_out_are_read_back() -> None:
    for settings in (ReceiptSettings(), ReceiptSettings(model="tfidf", tasks=("a",), sources={"a": "b"})):
        assert ReceiptSettings(**settings.model_dump(mode="json")) == settings
    assert ReceiptSettings(model="tfidf", tasks="a, b").tasks == ("a", "b")
