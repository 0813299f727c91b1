"""One verdict in words: what was decided, from which score to which, how surely, on how many examples.

Scores between 0 and 1 change by points, a hundredth each; a loss in nats per token, and beside it stands the
perplexity, exp(loss). Every function takes an entry of the `verdicts` of results.json, which is what
`metrics.Verdict.to_json` gives, and the name of the task's metric.
"""

import math
from collections.abc import Mapping

from forgetmenot.metrics import Metric, metric_named
from forgetmenot.record.result_schema import VerdictOf
from forgetmenot.report.wording import MINUS, NO_BREAK, NONE, listed, number, signed

KINDS = {"forgotten": "lost", "gained": "won", "kept": "held", "cannot tell": "open"}
"""Whether a decision is good, for its colour: lost, won, held, or open."""


PAIR_TITLES = {
    "base_end": "base model → end",
    "own_end": "own stage → end",
    "base_own": "base model → own stage",
}
"""What the pairs of models that a run judges are called, in the order of `metrics.PAIRS`."""


def decision_words(verdict: VerdictOf, metric: str) -> str:
    """What was decided: "forgotten", "kept (lower, within 3 points)", "cannot tell with 60 examples"."""
    return cannot_tell(verdict) if verdict["decision"] == "cannot tell" else short_words(verdict, metric)


def short_words(verdict: VerdictOf, metric: str) -> str:
    """The same without how many examples there were, or would do."""
    if not verdict["lower_within_margin"]:
        return verdict["decision"]
    return f"kept ({worse(metric)}, within {margin_words(verdict['margin'], metric)})"


def worse(metric: str) -> str:
    """Where a worse score lies, as people write it: "lower", and of a loss "higher"."""
    return "higher" if metric_named(metric).direction == "lower" else "lower"


def cannot_tell(verdict: VerdictOf) -> str:
    """That nothing can be told, and how many examples it would take."""
    if verdict["interval"] is None or verdict["reason"] is not None:  # more examples would not help
        return "cannot tell"
    enough = f" ({needed_words(verdict)})" if verdict["needed"] else ""
    return f"cannot tell with {examples_words(verdict)}{enough}"


def needed_words(verdict: VerdictOf) -> str:
    """How many examples would decide: "about 400 would do"; empty where that is not known."""
    if not verdict["needed"]:
        return ""
    what = "" if verdict["units"] == verdict["n"] else " clusters"
    return f"about {verdict['needed']:,}{what} would do"


def examples_words(verdict: VerdictOf) -> str:
    """On how many examples: "60 examples", "300 examples in 60 clusters"."""
    n, units = verdict["n"], verdict["units"]
    counted = f"{n:,} example{'s' * (n != 1)}"
    return counted if units in (n, 0) else f"{counted} in {units:,} cluster{'s' * (units != 1)}"


def margin_words(margin: float, metric: str) -> str:
    """A margin in the unit of the metric: "3 points", "0.05 nats per token", "0.05"."""
    chosen = metric_named(metric)
    if _in_points(chosen):
        points = round(100 * margin, 6)
        return f"{points:g} point{'s' * (points != 1)}"
    return f"{margin:g}" + ("" if chosen.bounded else f" {chosen.unit}")


def score_words(value: float | None, metric: str) -> str:
    """A score as people write it; a loss as "perplexity 41.2"."""
    if metric == "loss":
        return f"perplexity{NO_BREAK}{_score(value, metric)}"
    return _score(value, metric)


def move(before: float | None, after: float | None, metric: str) -> str:
    """From one score to another: "0.600 → 0.483", "perplexity 41.2 → 112"."""
    return f"{score_words(before, metric)}{NO_BREAK}→{NO_BREAK}{_score(after, metric)}"


def score_change(before: float | None, after: float | None, metric: str) -> tuple[str, str]:
    """The same without the word, and the word: "41.2 → 112", "perplexity"; of other metrics no word."""
    scores = f"{_score(before, metric)}{NO_BREAK}→{NO_BREAK}{_score(after, metric)}"
    return scores, "perplexity" if metric == "loss" else ""


def difference_words(verdict: VerdictOf, metric: str) -> str:
    """The difference in its unit: "−11.7 points", "+1.004 nats per token" of a loss; a dash without one."""
    chosen, difference = metric_named(metric), verdict["difference"]
    if difference is None:
        return NONE
    unit = "points" if _in_points(chosen) else "" if chosen.bounded else chosen.unit
    return f"{_change(difference, chosen)} {unit}".strip()


def interval_words(verdict: VerdictOf, metric: str) -> str:
    """The 95 % interval of the difference, low to high, in its unit; a dash without one."""
    if verdict["interval"] is None:
        return NONE
    chosen = metric_named(metric)
    low, high = sorted(verdict["interval"], key=chosen.shown)
    return f"{_change(low, chosen)} to {_change(high, chosen)}"


def early_warning(verdicts: Mapping[str, VerdictOf]) -> str:
    """Where the right answers' leads fell though no loss is shown, in a sentence; empty where nowhere."""
    told = []
    for task, verdict in verdicts.items():
        lead = verdict.get("lead")
        if lead and lead["warns"] and verdict["decision"] in ("kept", "cannot tell"):
            span = (
                f" [95 %: {signed(lead['interval'][0])} to {signed(lead['interval'][1])}]"
                if lead["interval"]
                else ""
            )
            told.append(f"{task} ({signed(lead['difference'])} nats{span})")
    if not told:
        return ""
    return f"Early warning, no loss yet: the right answer's lead over the best other fell: {listed(told)}."


def evidence(verdict: VerdictOf, metric: str, *, counted: bool = True) -> str:
    """All numbers of a verdict: "0.600 → 0.483, −11.7 points [95 %: −23.6 to +0.2], 60 examples".

    Args:
        verdict: The verdict.
        metric: The name of the task's metric.
        counted: Whether to say on how many examples.
    """
    told = [move(verdict["before"], verdict["after"], metric)]
    if verdict["difference"] is not None:
        span = f" [95{NO_BREAK}%: {interval_words(verdict, metric)}]" if verdict["interval"] else ""
        told.append(difference_words(verdict, metric) + span)
    return ", ".join([*told, examples_words(verdict)] if counted else told)


def _change(value: float, metric: Metric) -> str:
    """A change as people write it: in points with one decimal, else with three."""
    shown = metric.shown(value)
    if _in_points(metric):
        return f"{100 * shown + 0.0:+.1f}".replace("-", MINUS)
    return signed(shown)


def _in_points(metric: Metric) -> bool:
    return metric.bounded and metric.unit != "correlation"


def _score(value: float | None, metric: str) -> str:
    if value is None:
        return NONE
    return _perplexity(-value) if metric == "loss" else number(metric_named(metric).shown(value))


def _perplexity(loss: float) -> str:
    """exp(loss) with three digits at least; that of a loss which no float holds is infinite."""
    value = math.exp(loss) if loss < 700 else math.inf
    if not math.isfinite(value):
        return "∞"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}" if value >= 10 else f"{value:.2f}"
