"""What lm-evaluation-harness asks of a task's documents, as the examples of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import version
from typing import Any

from forgetmenot.errors import UserError
from forgetmenot.evaluation.benchmark import SHARES, Benchmark, Question
from forgetmenot.probes.shared.lm_eval_tasks import FEWSHOT_SEED, set_shots
from forgetmenot.tasks import Example, Generation

BY_PROBE = "measure it by the probe `general` (evaluation.probes)"
NO_SHARE = f"is no share of right answers, as a column is; {BY_PROBE}"


def ask(task: Any, places: Sequence[int]) -> list[Question]:
    """Put documents of one of lm-eval's tasks as lm-eval would, with its own shots.

    Args:
        task: Loaded by lm-eval.
        places: Of the documents, in order, at least one.

    Raises:
        UserError: If the task is scored otherwise than by right and wrong, or needs more than text.
    """
    _check(task)
    set_shots(task, None)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    everything = len(places) == len(task.eval_docs)
    task.build_all_requests(samples=None if everything else list(places))
    requests: dict[int, list[Any]] = {}
    for request in sorted(task.instances, key=lambda one: (one.doc_id, one.idx)):
        requests.setdefault(request.doc_id, []).append(request)
    return [
        _question(task, f"{task.task_name}-{place}", own)
        for place, own in zip(places, requests.values(), strict=True)
    ]


def as_benchmark(name: str, questions: Sequence[Question]) -> Benchmark:
    """A column of the questions of one task, or of all tasks of a group.

    Raises:
        UserError: If its tasks are scored, or their answers written, in different ways.
    """
    from forgetmenot.probes.shared.lm_eval_model import greedy_settings

    one_of_each = {id(question.task): question for question in questions}.values()
    measures = {_measure(question) for question in one_of_each}
    ways = {repr(question.requests[0].args[1]) for question in one_of_each if question.is_written}
    if len(measures) > 1 or len(ways) > 1:
        raise UserError(
            "its tasks are scored, or their answers written, in different ways; name them one by one."
        )
    labels: tuple[str, ...] = ()
    generation = Generation(extract=())
    if ways:
        settings = greedy_settings(questions[0].requests[0].args[1])
        until = settings["until"]
        stop = tuple(until) if isinstance(until, list) else (until,)
        generation = Generation(settings["max_gen_toks"], stop, extract=())
    else:
        labels, questions = _labelled(questions)
    return Benchmark(
        name=name,
        kind="benchmark",
        metric="exact_match" if ways else "accuracy",
        train=(),
        select=(),
        score=[_example(question) for question in questions],
        labels=labels,
        origin=f"lm-eval {version('lm-eval')}",
        generation=generation,
        measure=measures.pop(),
        questions={question.id: question for question in questions},
    )


def _check(task: Any) -> None:
    """Refuse a task whose answers are neither choices nor written, or that needs more than text."""
    if task.OUTPUT_TYPE not in SHARES:
        metric = next(iter(task.aggregation()), task.OUTPUT_TYPE)
        raise UserError(f"lm-eval's {metric} of it ({task.OUTPUT_TYPE}) {NO_SHARE}.")
    if getattr(task, "MULTIMODAL", False) or getattr(task, "UNSAFE_CODE", False):
        raise UserError("it needs images or sound, or executes what the model writes; this is not supported.")
    if (task.get_config("repeats") or 1) > 1:
        raise UserError("it asks each question several times; a column asks once. Name another of its kind.")


def _measure(question: Question) -> str:
    """lm-eval's metric, read off a made-up answer before hours are spent."""
    from lm_eval.api.metrics import mean

    made_up = [""] if question.is_written else [(-1.0 - k, False) for k in range(len(question.requests))]
    measure, value = question.measured(made_up)
    known, aggregation = SHARES[question.task.OUTPUT_TYPE], question.task.aggregation()
    if measure not in known or value not in (0, 1) or aggregation.get(measure) is not mean:
        raise UserError(f"lm-eval's {measure} of it {NO_SHARE}.")
    return measure


def _question(task: Any, name: str, requests: Sequence[Any]) -> Question:
    document = requests[0].doc
    if task.OUTPUT_TYPE == "generate_until":
        return Question(name, task, document, tuple(requests), target=_target(task, document))
    choices = tuple(str(choice) for choice in task.doc_to_choice(document))
    return Question(name, task, document, tuple(requests), choices, gold=_gold(task, name, choices, document))


def _gold(task: Any, name: str, choices: Sequence[str], document: Mapping[str, Any]) -> int:
    """The place of the right choice, the first of several, as lm-eval's `process_results` finds it."""
    said = task.doc_to_text(document) if task.multiple_input else task.doc_to_target(document)
    for one in said if isinstance(said, list) else [said]:
        place = choices.index(one) if isinstance(one, str) and one in choices else one
        if isinstance(place, int) and 0 <= place < len(choices):
            return place
    raise UserError(f"the right answer to {name} ({said!r}) is none of its {len(choices)} choices.")


def _target(task: Any, document: Mapping[str, Any]) -> str:
    """The gold text, the first of several."""
    said = task.doc_to_target(document)
    if task.get_config("doc_to_choice") is not None:
        return str(task.doc_to_choice(document)[said])
    if isinstance(said, list):
        return str(said[0]) if said else ""
    return str(said)


def _labelled(questions: Sequence[Question]) -> tuple[tuple[str, ...], list[Question]]:
    """The labels of a column: the choices where all questions have the same, and else numbers from 1 on."""
    named = tuple(choice.strip() for choice in questions[0].choices)
    if len({question.choices for question in questions}) > 1 or len({*named, ""}) <= len(named):
        most = max(len(question.choices) for question in questions)
        named = tuple(str(number) for number in range(1, most + 1))
    return named, [replace(one, labels=named[: len(one.choices)]) for one in questions]


def _example(question: Question) -> Example:
    """What people are shown: the question without its shots, and the choices where labels are but numbers."""
    if question.is_written:
        return Example(question.id, {"prompt": _context(question)}, target=question.target)
    assert question.gold is not None
    asked = question.requests[: len(question.choices)]
    if question.task.multiple_input:  # every choice is a context, before the same text
        fields = {label: one.args[0] for label, one in zip(question.labels, asked, strict=True)}
        fields["then"] = asked[0].args[1]
    else:
        fields = {"prompt": _context(question)}
        if not all(
            label == choice.strip() for label, choice in zip(question.labels, question.choices, strict=True)
        ):
            fields |= zip(question.labels, question.choices, strict=True)
    return Example(question.id, fields, label=question.labels[question.gold])


def _context(question: Question) -> str:
    """What the question is put by, without solved examples."""
    task, document = question.task, question.document
    if not task.get_config("num_fewshot"):
        return str(question.requests[0].args[0])
    return str(task.fewshot_context(document, num_fewshot=0, gen_prefix=task.doc_to_prefix(document)))
