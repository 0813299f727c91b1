"""One row's measurements: its value by the `general` probe, and the answers of both sides to compare."""

import hashlib
import json
import time
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
from lm_eval.models.huggingface import HFLM

from benchmarks.table import machine
from forgetmenot.engine.attention import choose_attention, use_attention
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import node_budget
from forgetmenot.engine.precision import Precision
from forgetmenot.metrics.resampling import wilson
from forgetmenot.models.load import load_model
from forgetmenot.models.settings import ModelSettings
from forgetmenot.probes.general import General, GeneralOptions
from forgetmenot.probes.shared.lm_eval_model import LearnerLM
from scripts.published_numbers.rows import Row

CPU = torch.device("cpu")
THEIR_BATCH = 8
Measured = dict[str, Any]


def value(row: Row, model: Path, data_dir: Path) -> Measured:
    """The row's value over its questions, as the `general` probe of a run measures it.

    Raises:
        ValueError: The model gave nan, or lm-eval does not know the row's metric.
    """
    began = time.process_time()
    (part,) = _probe(row, row.limit, data_dir).measure(_learner(model, row.dtype), "base", "base", model)
    found = {part.metric: part.value, **part.more}
    share = found.get(row.metric)
    if share is None:
        raise ValueError(f"{row.name}: no {row.metric} among {', '.join(found)}. {part.reason}")
    low, high = wilson(round(share * part.n), part.n)
    return {
        "value": share,
        "interval": [low, high],
        "n": part.n,
        "metrics": {name: number for name, number in found.items() if "," in name},
        "truncated": part.more["truncated"],
        **_conditions(row.dtype, began),
    }


def our_answers(row: Row, model: Path, data_dir: Path) -> Measured:
    """Our answers in fp32 to the row's questions that are compared."""
    began = time.process_time()
    lm = LearnerLM(_learner(model, "fp32"))
    return {"answers": _answers(row, lm, data_dir), **_conditions("fp32", began)}


def their_answers(
    row: Row, model: Path, data_dir: Path, dtype: Literal["float32", "float64"] = "float32"
) -> Measured:
    """The answers of lm-eval's own Hugging Face model, with the same weights, to the same questions."""
    began = time.process_time()
    lm = HFLM(pretrained=str(model), device="cpu", dtype=dtype, batch_size=THEIR_BATCH)
    return {"answers": _answers(row, lm, data_dir), **_conditions(dtype.replace("float", "fp"), began)}


def their_exact_answers(row: Row, model: Path, data_dir: Path) -> Measured:
    """The same computed in fp64, which tells whose rounding a difference is."""
    return their_answers(row, model, data_dir, "float64")


def _answers(row: Row, lm: Any, data_dir: Path) -> list[Measured]:
    """What a model of lm-eval's interface answers, question by question.

    Returns:
        Of each question and filter: its `place`; `asked`, a hash of what the model was shown; `replies`, a
        log-likelihood in nats for each candidate or a written text; `metrics`.
    """
    return [
        {
            "place": f"{task}/{one['doc_id']}/{one['filter']}",
            "asked": hashlib.sha256(json.dumps(one["arguments"], sort_keys=True).encode()).hexdigest(),
            "replies": [reply if isinstance(reply, str) else float(reply[0]) for (reply,) in one["resps"]],
            "metrics": {name: float(one[name]) for name in one["metrics"]},
        }
        for task, questions in _probe(row, row.compare, data_dir).samples(lm).items()
        for one in questions
    ]


def _probe(row: Row, limit: int | None, data_dir: Path) -> General:
    return General(GeneralOptions(tasks=(row.task,), limit=limit, num_fewshot=row.shots), data_dir)


@lru_cache(maxsize=1)
def _learner(model: Path, dtype: Precision) -> Learner:
    """A model as a run opens it, with weights and activations of one dtype."""
    loaded = load_model(ModelSettings(name=str(model), dtype=dtype), trainable=False, device=CPU)
    attention = choose_attention("auto", CPU, loaded.model)
    use_attention(loaded.model, attention)
    budget = node_budget("cpu", attention, torch.get_num_threads())
    return Learner(loaded.model, loaded.tokenizer, budget, dtype)


def _conditions(dtype: str, began: float) -> Measured:
    return {"machine": machine(CPU), "dtype": dtype, "processor_seconds": round(time.process_time() - began)}
