"""What became of each forgotten task, from all that a run measured beside its scores, and what that advises.

Every sentence has its number, and nothing is said of what was not measured. The advice follows rules of ours.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from forgetmenot.record.layer_map import LAYERS, LayerMap, layer_maps
from forgetmenot.record.results import RunResults, TaskOutcome
from forgetmenot.report.by_reading import Recovery, recoveries, recovery_sentences
from forgetmenot.report.headline import named_in_headline
from forgetmenot.report.layer_table import numbered
from forgetmenot.report.verdict_words import difference_words, evidence, examples_words, interval_words
from forgetmenot.report.wording import listed, number, signed, span

DRIFT, EMBEDDINGS = "drift", "embeddings"
CONCENTRATED = 1 / 3
"""Layers that were rewritten are few where they are no more than this share of all."""


@dataclass(frozen=True)
class Story:
    """What is told of one task that was forgotten."""

    task: str
    sentences: Sequence[str]


def stories(results: RunResults) -> list[Story]:
    """One for each forgotten task, the worst first, of which more than the loss itself was measured."""
    if results.measured < 2 or not results.in_sequence:
        return []
    maps = {one.task: one for one in layer_maps(results.probes[LAYERS])} if LAYERS in results.probes else {}
    helped = recoveries(results)
    told = []
    for outcome, verdict, _ in named_in_headline(results):
        task = outcome.task
        rewritten = _rewritten(results, outcome, maps.get(task))
        further = [
            *_where(rewritten, maps.get(task)),
            *_drift(results, task),
            *recovery_sentences(results, task),
        ]
        if further:
            lost = f"{task} was lost: {evidence(verdict, outcome.metric)}."
            advice = _advice(outcome, rewritten, maps.get(task), helped.get(task, []))
            told.append(Story(task, [lost, *further, *advice]))
    return told


def moved(results: RunResults) -> list[str]:
    """How far the model moved as a whole: its sentence embeddings, between the base and the end."""
    if EMBEDDINGS not in results.probes:
        return []
    found = results.probes[EMBEDDINGS]
    last = results.measured - 1
    said = []
    for k, part in enumerate(found["parts"]):
        before, after = found["values"][0][k], found["values"][last][k]
        if before is None or after is None:
            continue
        spans = [found["intervals"][i][k] for i in (0, last)]
        overlap = all(spans) and spans[0][0] <= spans[1][1] and spans[1][0] <= spans[0][1]
        sure = "; the intervals overlap" if overlap else ""
        said.append(
            f"Sentence embeddings on {part}, {found['metrics'][part]}: {_told(before, spans[0])} before, "
            f"{_told(after, spans[1])} at the end ({signed(after - before)}){sure}."
        )
    return said


def _told(value: float, interval: tuple[float, float] | None) -> str:
    return f"{number(value)} ({span(interval)})" if interval else number(value)


def _rewritten(results: RunResults, outcome: TaskOutcome, found: LayerMap | None) -> dict[str, list[int]]:
    """By later stage, the layers that it rewrote as the task's inputs go through them."""
    if found is None:
        return {}
    own = results.own_stage(outcome.task) or 0
    stages = range(own + 1, min(results.measured, len(found.stages)))
    return {found.stages[i]: layers for i in stages if (layers := found.rewritten(i))}


def _where(rewritten: Mapping[str, Sequence[int]], found: LayerMap | None) -> Iterator[str]:
    """The layers that later stages rewrote, with the likeness that was left."""
    if found is None or not rewritten:
        return
    told = [f"{stage} rewrote {numbered(layers)}" for stage, layers in rewritten.items()]
    last = len(found.base) - 1
    place = found.least_alike(last)
    least = ""
    if place is not None:
        value = found.base[last][place]
        likeness = _told(value, found.spans[last][place]) if value is not None else ""
        least = f"; at the end layer {found.layers[place]} is least like the base, {likeness}"
    yield f"On its inputs {listed(told)}{least}."


def _drift(results: RunResults, task: str) -> Iterator[str]:
    """How far the answers' distributions moved on the task's inputs."""
    if DRIFT not in results.probes:
        return
    found: Mapping[str, Any] = results.probes[DRIFT]
    part = f"{task} divergence"
    if part not in found["parts"]:
        return
    k, last = found["parts"].index(part), results.measured - 1
    value, interval = found["values"][last][k], found["intervals"][last][k]
    if value is not None:
        yield f"Its answers drifted by {_told(value, interval)} nats per token from the base."


def _advice(
    outcome: TaskOutcome,
    rewritten: Mapping[str, Sequence[int]],
    found: LayerMap | None,
    helped: Sequence[Recovery],
) -> Iterator[str]:
    """What the measurements speak for, and against."""
    task, metric = outcome.task, outcome.metric
    gained = [one for one in helped if one.brought_back["decision"] == "gained"]
    whole = [one.how for one in gained if one.whole]
    if whole:
        yield (
            f"Advice: the ability is still there (with {listed(whole)} the score of its own stage is "
            f"reached within the margin), so a few replayed examples of {task} are worth trying first: "
            "method replay."
        )
    elif gained:
        best = max(gained, key=lambda one: one.brought_back["difference"] or 0.0)
        yield (
            f"Advice: a part at least is still there: with {best.how} it ends at "
            f"{difference_words(best.still_lost, metric)} ({interval_words(best.still_lost, metric)}) from "
            f"its own stage, which {examples_words(best.still_lost)} do not call all of it. A few replayed "
            f"examples of {task} are worth trying first: method replay."
        )
    elif helped:
        yield (
            f"Advice: none of {listed([one.how for one in helped])} is shown to bring anything back, so "
            "count on the task being lost, and train with past examples (method replay) or on all at once "
            "(method joint)."
        )
    if found is None or not rewritten:
        return
    layers = sorted({layer for some in rewritten.values() for layer in some})
    if len(layers) <= CONCENTRATED * len(found.layers):
        numbers = ", ".join(str(layer - 1) for layer in layers)
        yield (
            f"Advice: {len(layers)} of {len(found.layers)} layers were rewritten, so freezing them may help: "
            f"method {{name: freeze, layers: [{numbers}]}} (counted from 0)."
        )
    else:
        yield (
            f"Advice: {len(layers)} of {len(found.layers)} layers were rewritten; freezing so many would "
            "keep later tasks from being learned."
        )
