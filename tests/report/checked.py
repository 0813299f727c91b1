"""The content of a check with chosen answers, for the tests of its reports."""

from typing import Any

import numpy as np

from forgetmenot.metrics import Answers, judge

LONG = "a_task_with_a_rather_long_name_that_does_not_fit"


def turned(gained: int, lost: int, n: int, right: int) -> Answers:
    """Two models' answers to n examples; so many turned, and so many are right both times."""
    both = np.arange(n)
    before = (both < lost) | ((both >= lost + gained) & (both < lost + gained + right))
    after = ((both >= lost) & (both < lost + gained)) | ((both >= lost + gained) & before)
    return Answers("accuracy", np.ones(n, dtype=int), [before.astype(int), after.astype(int)])


def corpus(n: int = 60) -> Answers:
    """Texts that all lose about one nat a token."""
    generator = np.random.default_rng(0)
    before = generator.normal(-3.7, 0.5, n)
    after = before - 1 + generator.normal(0, 0.1, n)
    tokens = np.full(n, 10.0)
    return Answers("loss", None, [np.stack([10 * one, tokens], axis=1) for one in (before, after)])


def side(title: str, kind: str) -> dict[str, Any]:
    """What a check says of a side."""
    return {
        "given": f"/models/{title}",
        "title": title,
        "kind": kind,
        "weights": "0123456789abcdef",
        "parameters": 1000,
        "device": "cpu",
        "threads": 2,
        "precision": "fp32",
        "dtype": "float32",
    }


def content(*, chain: bool = False, text: str = "a line", status: int = 1) -> dict[str, Any]:
    """A check in which a corpus and one task were lost; with `chain` the task only in the second step."""
    columns = {
        "sst2": turned(3, 60, 872, 700),
        "mrpc": turned(20, 30, 408, 200),
        LONG: turned(5, 40, 9815, 6000),
        "arc_easy": turned(30, 5, 300, 150),
        "corpus": corpus(),
    }
    margins = {task: 0.05 if task == "corpus" else 0.03 for task in columns}
    verdicts = {task: one.to_json() for task, one in judge(columns, margins).items()}
    same = {**columns, "sst2": turned(0, 0, 872, 700)}
    unchanged = {task: one.to_json() for task, one in judge(same, margins).items()}
    flips = [
        {
            "example": f"score:{k}",
            "turned": "lost" if k < 60 else "gained",
            "text": f"{text} {k}",
            "right": "positive",
            "before": "positive" if k < 60 else "negative",
            "after": "negative" if k < 60 else None,
        }
        for k in range(63)
    ]
    sides = [side("base", "model"), side("run:01-sst2", "stage"), side("exported-Q4_0.gguf", "GGUF file")]
    steps = [
        {"before": "base", "after": "run:01-sst2", "kind": "stage", "verdicts": unchanged},
        {"before": "run:01-sst2", "after": "exported-Q4_0.gguf", "kind": "GGUF file", "verdicts": verdicts},
    ]
    if not chain:
        sides = sides[:2]
        steps = [{"before": "base", "after": "run:01-sst2", "kind": "stage", "verdicts": verdicts}]
    again = {task: {"n": 64, "different": 0, "flipped": 0, "log_likelihood_apart": 1e-5} for task in columns}
    return {
        "version": 1,
        "status": status,
        "base": sides[0],
        "tuned": sides[1:],
        "chat": False,
        "tasks": {
            task: {
                "metric": one.metric,
                "metric_version": 1,
                "n": verdicts[task]["n"],
                "prompt": "default",
                "prompt_hash": "0",
                "margin": margins[task],
                "majority": {"mrpc": 0.7, "corpus": None}.get(task, 0.5),
            }
            for task, one in columns.items()
        },
        "verdicts": verdicts,
        "steps": steps,
        "asked_again": again,
        "control": {**again, "mrpc": {"n": 64, "different": 2, "flipped": 1}},
        "flips": {task: flips if task == "sst2" else [] for task in columns},
        "probes": {},
        "notes": [],
    }
