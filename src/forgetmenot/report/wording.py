"""Numbers and results in readable words."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from forgetmenot.metrics import metric_named
from forgetmenot.metrics.resampling import Interval
from forgetmenot.metrics.verdicts import ASSUMED_DISCORDANCE
from forgetmenot.record.results import RunResults

NONE = "–"
MINUS = "\N{MINUS SIGN}"
NO_BREAK = "\N{NO-BREAK SPACE}"

NAMED_AT_MOST = 4


HEADLINES = {
    "average_performance": "average performance",
    "backward_transfer": "backward transfer",
    "forward_transfer": "forward transfer",
    "forgetting": "forgetting (Chaudhry)",
    "learning_accuracy": "learning accuracy",
}
"""The figures that a report begins with."""


def left_out(results: RunResults) -> str:
    """What the averages of a run leave out and what they are of, in sentences; empty where all fits."""
    over = [str(task) for task in results.summary.get("over", ())]
    sentences = [str(results.summary.get("reasons", {}).get("over", ""))]
    if over and all(metric_named(results.metrics[task]).direction == "lower" for task in over):
        sentences.append("They are of scores with their sign turned, so that higher is better.")
    return " ".join(filter(None, sentences))


def asked_again(results: RunResults) -> str:
    """What the base model answered otherwise when it was asked again, in a sentence; empty without."""
    told = [
        f"{again['different']} of {again['n']} examples of {task}"
        for task, again in results.asked_again.items()
    ]
    if not told:
        return ""
    more = [
        task
        for task, again in results.asked_again.items()
        if again["different"] > ASSUMED_DISCORDANCE * again["n"]
    ]
    beyond = (
        f" On {listed(more)} that is more than the {100 * ASSUMED_DISCORDANCE:.0f} in 100 assumed before the "
        "run: larger drops cannot be ruled out than it said."
        if more
        else ""
    )
    return (
        f"Asked again in another order and batch size, the base model answers {listed(told)} otherwise: a "
        f"difference of that size is noise.{beyond}"
    )


def number(value: float | None) -> str:
    """A score with three decimals; a dash where there is none."""
    return NONE if value is None else f"{value:.3f}".replace("-", MINUS)


def signed(value: float | None) -> str:
    """A difference with its sign and three decimals."""
    return NONE if value is None else f"{value + 0.0:+.3f}".replace("-", MINUS)


def span(interval: Interval | Sequence[float] | None) -> str:
    """An interval, low to high."""
    return NONE if interval is None else f"{number(interval[0])} to {number(interval[1])}"


def cross_fitted(found: Mapping[str, Any] | None) -> str:
    """A cross-fitted figure with its interval; empty where there is none."""
    return f"cross-fitted {number(found['value'])}, {span(found['interval'])}" if found else ""


def p_value(p: float | None) -> str:
    """A p value with three decimals, never rounded to zero."""
    if p is None:
        return NONE
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def common(choice: str | Mapping[str, str]) -> str:
    """A reading's one metric or prompt, or each task's own where they differ."""
    if isinstance(choice, str):
        return choice
    if len(set(choice.values())) == 1:
        return next(iter(choice.values()))
    return ", ".join(f"{task}: {name}" for task, name in choice.items())


def way(reading: Mapping[str, Any]) -> str:
    """How a reading was asked: "by likelihood / tokens, contextual calibration, 4 demonstrations"."""
    said = f"by {reading['scoring']}"
    if (per := reading.get("normalization", "none")) != "none":
        said += " minus the unconditional one" if per == "unconditional" else f" / {per}"
    if (calibration := reading.get("calibration", "none")) != "none":
        said += f", {calibration} calibration"
    counts = sorted({shown["count"] for shown in reading.get("demonstrations", {}).values()})
    said += f", {' or '.join(map(str, counts))} demonstrations" if counts else ""
    again = sorted(set(reading.get("realigned", {}).values()))
    return said + (f", realigned on {' or '.join(map(str, again))} examples" if again else "")


def setting(value: Any) -> str:
    """A value of a config on one line: {"name": "ewc", "strength": 2} is "ewc (strength 2)"."""
    if isinstance(value, Mapping):
        rest = ", ".join(f"{key} {setting(one)}" for key, one in value.items() if key != "name")
        return rest if "name" not in value else f"{value['name']} ({rest})" if rest else str(value["name"])
    if isinstance(value, list | tuple):
        return ",".join(setting(one) for one in value)
    return value if isinstance(value, str) else json.dumps(value)


def setting_among(value: Any, values: Iterable[Any]) -> str:
    """A value of a config beside others of its key: of files only the names, where these tell them apart."""
    values = list(values)
    if len({setting(_short(one)) for one in values}) == len({setting(one) for one in values}):
        return setting(_short(value))
    return setting(value)


def _short(value: Any) -> Any:
    """A value in which a path to a YAML file (a task, a map of prompts) is its name alone."""
    if isinstance(value, Mapping):
        return {key: _short(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_short(one) for one in value]
    if isinstance(value, str) and "/" in value and value.endswith((".yaml", ".yml")):
        return value.rpartition("/")[2].rpartition(".")[0]
    return value


def duration(seconds: float) -> str:
    """A time as people say it: 41 s, 3 min 05 s, 2 h 10 min."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{seconds} s"


def byte_size(count: float) -> str:
    """So many bytes as people say it: 12 B, 2.5 MB."""
    units = ["GB", "MB", "kB", "B"]
    while count >= 1000 and len(units) > 1:
        count /= 1000
        units.pop()
    return f"{count:.3g} {units[-1]}"


def listed(words: Sequence[str]) -> str:
    """Words as in a sentence: a, b and c."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def few(words: Sequence[str], kind: str) -> str:
    """The words themselves, or how many where they are too many for a sentence."""
    return listed(words) if len(words) <= NAMED_AT_MOST else f"{len(words)} {kind}"
