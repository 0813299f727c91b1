"""The corpus that a run only watched: its loss leads the report, whatever was learned."""

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import forgetmenot
from forgetmenot.record.layout import PREDICTIONS, stage_folder
from forgetmenot.record.predictions import read_predictions
from forgetmenot.report.terminal import print_matrix
from forgetmenot.runs.api import Run
from forgetmenot.tasks import load_tasks

TEXTS = 60


def sentences(split: str) -> list[str]:
    """Good English of the kind that the bundled model was pre-trained on."""
    (task,) = load_tasks(["qs-acceptability"], None)
    return [str(one.fields["sentence"]) for one in getattr(task, split) if one.label == "acceptable"]


def write_task(folder: Path, name: str, **splits: Sequence[str]) -> str:
    """A task of plain texts in a file of its own."""
    for split, texts in splits.items():
        rows = "\n".join(json.dumps({"text": text}) for text in texts)
        (folder / f"{name}-{split}.jsonl").write_text(rows + "\n")
    data = ", ".join(f"{split}: {name}-{split}.jsonl" for split in splits)
    path = folder / f"{name}.yaml"
    path.write_text(f"name: {name}\ndata: {{{data}}}\ntext: text\nmetric: loss\n")
    return str(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The bundled model learns a language in which words stand in reverse; a corpus is only watched."""
    folder = tmp_path_factory.mktemp("corpus")
    known, new = sentences("score"), [" ".join(reversed(text.split())) for text in sentences("train")]
    corpus = [" ".join(known[k : k + 2]) for k in range(0, 2 * TEXTS, 2)]
    config: dict[str, Any] = {
        "model": "quickstart-small",
        "tasks": [write_task(folder, "news", train=new[:320], score=new[320:400])],
        "evaluation.also_score": [write_task(folder, "corpus", score=corpus)],
        "adapter.kind": "full",
        "training.learning_rate": 3e-3,
        "training.batch_size": 16,
        "output": str(folder / "run"),
    }
    return forgetmenot.run(config)


def test_every_text_of_the_corpus_is_worse(run: Run) -> None:
    stages = [read_predictions(stage_folder(run.path, name) / PREDICTIONS) for name in ("00-base", "01-news")]
    base, end = ([row[0] for row in stage["corpus"].log_likelihoods if row] for stage in stages)
    assert len(base) == TEXTS
    assert all(now < then for then, now in zip(base, end, strict=True))
    assert run.results["verdicts"]["base_own"]["news"]["decision"] == "gained"


def test_the_headline_names_the_corpus_first(run: Run) -> None:
    screen = io.StringIO()
    print_matrix(run.results, Console(file=screen, width=200))
    page = (run.path / "report.html").read_text(encoding="utf-8")
    page_text = re.sub(r"<[^>]+>", " ", page[page.index("<body>") :])
    for told in (screen.getvalue()[screen.getvalue().rindex("quickstart-small lost") :], page_text):
        said = " ".join(told.replace("\N{NO-BREAK SPACE}", " ").split())
        lost = re.search(
            r"quickstart-small lost corpus \(perplexity [\d.]+ → [\d.,]+, \+\d\.\d{3} nats per token "
            r"\[95 %: \+[\d.]+ to \+[\d.]+\], 60 examples\) against the base model\. "
            r"Trained on news, it learned news \(perplexity ",
            said,
        )
        assert lost, said[:600]


def test_its_texts_are_the_ones_to_read(run: Run) -> None:
    page = (run.path / "report.html").read_text(encoding="utf-8")
    words = " ".join(re.sub(r"<[^>]+>", " ", page[page.index('id="examples"') :]).split())
    assert "corpus since the base model: 60 of 60 less likely, 0 likelier" in words
