"""Evaluation of one task: the model's answers to its examples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.random import SeedSequence

from forgetmenot.engine.decoding import Answer
from forgetmenot.evaluation.benchmark import Benchmark
from forgetmenot.evaluation.scored_task import GenerationPlan, ScoredTask
from forgetmenot.evaluation.scoring import SCORINGS
from forgetmenot.methods import Method
from forgetmenot.record.predictions import Predictions
from forgetmenot.tasks.answers import extracted

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner
    from forgetmenot.evaluation.answer_log import AnswerLog

COLUMNS = [one.name for one in fields(Predictions) if one.name not in ("labels", "routed")]


def evaluate(
    learner: Learner,
    method: Method,
    scored: ScoredTask,
    advance: Any = None,
    log: AnswerLog | None = None,
) -> Predictions:
    """Score or generate the answers of one task, each by the part of the method that it is routed to.

    Args:
        learner: The model as the method answers with it.
        method: What routes.
        scored: The task.
        advance: Told how many sequences are done.
        log: Where answers that are generated are kept as they come.
    """
    from forgetmenot.evaluation.routing import by_part

    size = len(scored.encoded)

    def ask(places: Sequence[int], part: str) -> list[tuple[Predictions, int]]:
        learner.keeps.part = part
        some = scored if len(places) == size else scored.only(places)
        answers = learner.within_memory(lambda: _answers(learner, some, advance, log))
        return [(answers, k) for k in range(len(places))]

    rows, counts = by_part(learner, method, [example.prompt for example in scored.encoded], ask)
    if not counts:
        return rows[0][0]
    columns = {name: [getattr(answers, name)[k] for answers, k in rows] for name in COLUMNS}
    return Predictions(**columns, labels=scored.task.labels, routed=counts)


def _answers(learner: Learner, scored: ScoredTask, advance: Any, log: AnswerLog | None) -> Predictions:
    """The answers of the model as it stands."""
    task, encoded = scored.task, scored.encoded
    if isinstance(task, Benchmark):
        return _answers_to_benchmark(learner, scored, task, advance, log)
    if task.labels:
        choices = SCORINGS[scored.rule.scoring].read(learner, scored, advance)
        return scored.predictions(
            predicted=choices.predicted,
            log_likelihoods=choices.log_likelihoods,
            generated=choices.written,
        )
    if scored.generation is None:
        values = learner.log_likelihoods(scored.arranged(learner), advance).numpy()
        return scored.predictions(
            predicted=[None] * len(encoded),
            log_likelihoods=[[value] for value in values.tolist()],
            tokens=[len(example.answer.tokens) - example.answer.start for example in encoded],
        )
    answers = _generated(learner, scored, scored.generation, advance, log)
    return scored.predictions(
        predicted=[
            extracted(answer.text, task.generation.extract) if answer.finite else None for answer in answers
        ],
        generated=[answer.text if answer.finite else None for answer in answers],
        margins=[list(answer.margins) or None for answer in answers],
    )


def _answers_to_benchmark(
    learner: Learner, scored: ScoredTask, task: Benchmark, advance: Any, log: AnswerLog | None
) -> Predictions:
    """The same for a benchmark: lm-eval says what is right."""
    if scored.generation is not None:
        answers, decoding = (
            _generated(learner, scored, scored.generation, advance, log),
            scored.generation.decoding,
        )
        return scored.predictions(
            predicted=[
                task.written(example, answer.text, decoding) if answer.finite else None
                for example, answer in zip(scored.examples, answers, strict=True)
            ],
            generated=[answer.text if answer.finite else None for answer in answers],
            margins=[list(answer.margins) or None for answer in answers],
        )
    values = learner.log_likelihoods(scored.arranged(learner), advance).tolist()
    bounds = np.cumsum([0, *(len(one.candidates) for one in scored.encoded)]).tolist()
    chosen = [
        task.chosen(example, values[a:b])
        for example, (a, b) in zip(scored.examples, pairwise(bounds), strict=True)
    ]
    return scored.predictions(
        predicted=[label for label, _ in chosen], log_likelihoods=[row for _, row in chosen]
    )


def _generated(
    learner: Learner, scored: ScoredTask, plan: GenerationPlan, advance: Any, log: AnswerLog | None
) -> list[Answer]:
    """Generate the answers that an interrupted evaluation has not kept."""
    seeds = None
    if plan.decoding.temperature > 0:
        names = [f"{scored.task.name}/{name}".encode() for name in scored.encoded.ids]
        seeds = [int(SeedSequence([plan.seed, *name]).generate_state(1)[0]) for name in names]
    prompts = [example.prompt for example in scored.encoded]
    if plan.by_vllm:
        return learner.write_by_vllm(
            prompts,
            plan.decoding,
            seeds=seeds,
            margins=plan.margins,
            advance=advance,
        )
    done, save = log.begin(learner.model, scored.encoded, plan.decoding) if log else ({}, None)
    return learner.write(
        prompts,
        plan.decoding,
        seeds=seeds,
        margins=plan.margins,
        batch_positions=plan.batch_positions,
        advance=advance,
        done=done,
        save=save,
    )
