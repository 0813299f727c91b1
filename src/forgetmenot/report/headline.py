"""The headline of a run in sentences: what was lost, what was learned, what cannot be told, what was kept."""

from collections.abc import Callable, Iterator, Sequence

from forgetmenot.record.result_schema import VerdictOf
from forgetmenot.record.results import RunResults, TaskOutcome
from forgetmenot.report.verdict_words import (
    cannot_tell,
    decision_words,
    difference_words,
    early_warning,
    evidence,
    examples_words,
    move,
    score_words,
)
from forgetmenot.report.wording import NAMED_AT_MOST, few, listed


def headline(results: RunResults) -> list[str]:
    """The sentences that a report begins with, most important first; every loss comes before all else.

    Only verdicts speak of what was lost or kept: see `metrics.verdicts`.
    """
    if results.measured < 2:
        return [f"{results.name} has been scored and not trained yet."]
    if not any(results.verdicts.values()):
        return _unjudged(results)
    first = list(_lost(results)) or list(_nothing_lost(results))
    sentences = [f"{'It' if k else results.name} {said}." for k, said in enumerate(first)]
    sentences += _learned(results, "it" if sentences else results.name)
    sentences += [f"It {said}." for said in _gained(results)]
    return [*sentences, *_open(results), *_kept(results), *_warnings(results)]


def named_in_headline(results: RunResults) -> list[tuple[TaskOutcome, VerdictOf, bool]]:
    """The tasks that were lost, worst first: the verdict that says so, and whether that is from the base."""
    forgotten = [one for one in results.outcomes if one.state == "forgotten"]
    found = [
        (one, verdict, _is(one.base_end, "forgotten"))
        for one in forgotten
        if (verdict := one.base_end if _is(one.base_end, "forgotten") else one.own_end or one.base_own)
    ]
    return sorted(found, key=lambda named: (not named[2], (named[1]["difference"] or 0) / named[1]["margin"]))


def _is(verdict: VerdictOf | None, decision: str) -> bool:
    return verdict is not None and verdict["decision"] == decision


def _lost(results: RunResults) -> Iterator[str]:
    """What ended below the base model, then what was forgotten since it was learned."""
    found = named_in_headline(results)
    if lost := [(one, verdict) for one, verdict, base in found if base]:
        items, each = _with_numbers(lost, _peak)
        yield f"lost {items} against the base model{each}"
    if since := [(one, verdict) for one, verdict, base in found if not base and one.own_end]:
        its = "its own stage" if len(since) == 1 else "their own stages"
        items, each = _with_numbers(since, _against_base)
        yield f"forgot {items} since {its}{each}"
    # Of stages that each start from the base, only the learning is judged.
    if lowered := [(one, verdict) for one, verdict, base in found if not base and not one.own_end]:
        items, each = _with_numbers(lowered)
        yield f"lost {items} in {'its' if len(lowered) == 1 else 'their'} own training{each}"


def _with_numbers(
    found: Sequence[tuple[TaskOutcome, VerdictOf]], note: Callable[[TaskOutcome], str] = lambda _: ""
) -> tuple[str, str]:
    """Every task, the worst with their numbers; and on how many examples, where that is the same for all."""
    counts = {examples_words(verdict) for _, verdict in found[:NAMED_AT_MOST]}
    alike = len(found) > 1 and len(counts) == 1
    told = [
        f"{one.task} ({evidence(verdict, one.metric, counted=not alike)}{note(one)})"
        for one, verdict in found[:NAMED_AT_MOST]
    ]
    named = listed([*told, *(one.task for one, _ in found[NAMED_AT_MOST:])])
    return named, f", on {counts.pop()} each" if alike else ""


def _peak(outcome: TaskOutcome) -> str:
    """How high a task was in between, where it was forgotten since its own stage as well."""
    if not _is(outcome.own_end, "forgotten"):
        return ""
    return f"; {score_words(outcome.learned, outcome.metric)} right after its own stage"


def _against_base(outcome: TaskOutcome) -> str:
    """How a task that was forgotten since its own stage ended against the base model."""
    base = score_words(outcome.base, outcome.metric)
    words = {
        "gained": f"still better than the base model’s {base}",
        "kept": f"kept against the base model’s {base}",
        "cannot tell": f"base model {base}, cannot tell",
    }
    return f"; {words[outcome.base_end['decision']]}" if outcome.base_end else ""


def _nothing_lost(results: RunResults) -> Iterator[str]:
    """That no loss is shown: proven where every task was kept or gained, else of which it is open."""
    ends = [one for one in results.outcomes if one.own_end or (one.base_end and not one.trained)]
    unsure = [one.task for one in ends if one.state == "cannot tell"]
    if unsure:
        yield f"shows no loss, and none can be ruled out on {few(unsure, 'tasks')}"
    elif ends:
        yield "lost nothing beyond the margins"


def _learned(results: RunResults, subject: str) -> Iterator[str]:
    """What training raised above the base model, and what it did not."""
    trained = [one for one in results.outcomes if one.base_own]
    clauses = []
    sound = [one for one in trained if not one.not_learned]
    raised = [one for one in sound if _is(one.base_own, "gained")]
    if raised:
        clauses.append(f"learned {_moves(raised)}")
    if same := [one for one in sound if _is(one.base_own, "kept")]:
        clauses.append(f"did not gain on {_moves(same)}")
    if weak := [one.task for one in trained if one.not_learned]:
        every = "it" if len(weak) == 1 else "any of them"
        clauses.append(f"did not rise above chance on {few(weak, 'tasks') if sound else every}")
    if lowered := [
        one for one in sound if _is(one.base_own, "forgotten") and not _is(one.base_end, "forgotten")
    ]:
        clauses.append(f"lost on {_moves(lowered)} in training on {'it' if len(lowered) == 1 else 'them'}")
    if clauses:
        yield f"{_opening(results, trained)}, {subject} {listed(clauses)}."
    if doubtful := [one for one in sound if _is(one.base_own, "cannot tell")]:
        told = [_undecided(one, one.base_own) for one in doubtful if one.base_own]
        yield f"Cannot tell whether it learned {_few(told)}."


def _opening(results: RunResults, trained: Sequence[TaskOutcome]) -> str:
    names = few([one.task for one in trained], "tasks")
    if not results.in_sequence:
        return f"Trained on each of {names} from the base model"
    how = "" if len(trained) == 1 else " in turn" if len(results.stages) > 2 else " at once"
    return f"Trained on {names}{how}"


def _gained(results: RunResults) -> Iterator[str]:
    """What rose without being trained on: watched tasks, and learned ones after their own stage."""
    watched = [one for one in results.outcomes if not one.trained and _is(one.base_end, "gained")]
    later = [one for one in results.outcomes if _is(one.own_end, "gained")]
    if watched:
        them = "it" if len(watched) == 1 else "them"
        yield f"gained on {_moves(watched)} without training on {them}"
    if later:
        its = "its own stage" if len(later) == 1 else "their own stages"
        told = [f"{one.task} ({move(one.learned, one.end, one.metric)})" for one in later]
        yield f"gained further on {_few(told)} after {its}"


def _open(results: RunResults) -> Iterator[str]:
    """What cannot be told of the end, and how many examples it would take."""
    told = []
    for one in results.outcomes:
        if one.state != "cannot tell":
            continue
        if _is(one.own_end, "cannot tell") and one.own_end:
            told.append(_undecided(one, one.own_end, " since its own stage"))
        elif one.base_end and (one.own_end or not one.trained):
            told.append(_undecided(one, one.base_end))
    if told:
        yield f"Cannot tell: {_few(told, '; ')}."


def _undecided(outcome: TaskOutcome, verdict: VerdictOf, since: str = "") -> str:
    """A task on which nothing can be told, with its numbers, or why it has none."""
    for name, value in (("before", verdict["before"]), ("after", verdict["after"])):
        if value is None:
            return f"{outcome.task}{since} (no score {name})"
    numbers = move(verdict["before"], verdict["after"], outcome.metric)
    told = f"{numbers}, {difference_words(verdict, outcome.metric)}"
    if reason := verdict["reason"]:
        return f"{outcome.task}{since} ({told}; {reason[0].lower()}{reason[1:].rstrip('.')})"
    words = cannot_tell(verdict).removeprefix("cannot tell").strip()
    return f"{outcome.task}{since} ({told}) {words}".rstrip()


def _kept(results: RunResults) -> Iterator[str]:
    """What ended no lower than by its margin: shown, not merely unrefuted."""
    told = []
    for one in results.outcomes:
        verdict = one.own_end if one.trained else one.base_end
        if one.state == "forgotten" or verdict is None or verdict["decision"] != "kept":
            continue
        note = decision_words(verdict, one.metric).removeprefix("kept").strip()
        since = " since its own stage" if one.trained else ""
        told.append(" ".join(filter(None, (f"{one.task}{since}", note))))
    if told:
        yield f"Kept: {few(told, 'tasks')}."


def _warnings(results: RunResults) -> Iterator[str]:
    """The early warning against the base model, on tasks that were only watched or learned before the end."""
    ends = {
        one.task: verdict
        for one in results.outcomes
        if (verdict := one.own_end or (None if one.trained else one.base_end))
    }
    if told := early_warning(ends):
        yield told
    yield from _not_rehearsed(results)


def _not_rehearsed(results: RunResults) -> Iterator[str]:
    """That a method of rehearsal had nothing to rehearse: its scores say nothing about rehearsal then."""
    in_stages = results.cost.get("rehearsed", {})
    if without := [name for name, count in in_stages.items() if not count]:
        where = "in any stage" if len(without) == len(in_stages) else f"in {listed(without)}"
        yield f"No example of an earlier task was rehearsed {where}."


def _moves(outcomes: Sequence[TaskOutcome]) -> str:
    """Tasks from the base model to their own stage; one that was only watched, to the end."""
    return _few(
        [
            f"{one.task} ({move(one.base, one.learned if one.trained else one.end, one.metric)})"
            for one in outcomes
        ]
    )


def _few(told: Sequence[str], between: str = ", ") -> str:
    """The first ones, and how many more there are: the table has all."""
    shown = list(told[:NAMED_AT_MOST])
    if len(told) > len(shown):
        return between.join([*shown, f"and {len(told) - len(shown)} more"])
    return listed(shown) if between == ", " else between.join(shown)


def _unjudged(results: RunResults) -> list[str]:
    """The scores of a run that is not finished, or whose file is older than verdicts."""
    trained = [one for one in results.outcomes if one.learned is not None]
    told = []
    for one in trained:
        ended = one.end is not None and one.end != one.learned
        end = f"{move(one.learned, one.end, one.metric)} since its own stage" if ended else ""
        told.append(f"{one.task} ({'; '.join(filter(None, (move(one.base, one.learned, one.metric), end)))})")
    sentences = [f"{_opening(results, trained)}, {results.name} moved on {_few(told)}."] if told else []
    if results.complete:
        return [*sentences, "Whether anything was lost is not judged: this results.json has no verdicts."]
    done = f"{results.measured} of {len(results.stages)} stages are done"
    return [*sentences, f"{done}; what was lost is judged after the last."]
