"""Claims that a study states before its runs, and what the runs make of them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from forgetmenot.errors import UserError
from forgetmenot.metrics import MOST_FLIPPED, Contrast, contrast, holm, sign_flip
from forgetmenot.record.results import SIGNIFICANT
from forgetmenot.report.comparison.comparison import NO_SPREAD, Comparison, Group
from forgetmenot.report.comparison.runs import CONDITIONS
from forgetmenot.report.comparison.weighted import UntestableError, matched, weighted
from forgetmenot.report.wording import MINUS, listed, p_value, signed
from forgetmenot.settings import Settings

MOST = 5
ONE_SEED = "Only one seed has finished for all that it speaks of."


class Condition(Settings):
    """A weighted sum of one figure over methods that must be above a bound."""

    figure: Literal["final mean", "drop since learned", "learning accuracy"]
    """What is summed: the final mean, the drop since a task was learned, or the learning accuracy."""
    weights: Annotated[dict[str, float], Field(min_length=1)]
    """Each row of the comparison to its weight: by its whole name, or by its method where that is its own.
    `{replay: 1, sequential: -0.2, joint: -0.8}` of the final mean is above 0 where replay closes more than
    80 % of the gap from sequential to joint."""
    above: float = 0.0
    """The bound, in the figure's unit; the sum must be surely above it."""


class Claim(Settings):
    """A sentence that is stated before the runs, and the conditions under which they bear it out."""

    says: Annotated[str, Field(min_length=1)]
    """The sentence."""
    conditions: Annotated[list[Condition], Field(min_length=1)]
    """All of them must hold. The p of the claim is the largest of theirs (an intersection-union test)."""


@dataclass(frozen=True)
class JudgedCondition:
    """A condition and what the runs say.

    Attributes:
        total: The weighted sum; None where it cannot be had.
        beyond: The sum less its bound, tested over seeds and examples together.
        reason: Why it is not tested.
        by_sign: The exact p of a sign-flip test over the seeds alone; None with one seed,
            and with more than can be flipped in all ways.
    """

    condition: Condition
    total: float | None = None
    beyond: Contrast | None = None
    by_sign: float | None = None
    reason: str | None = None

    @property
    def p(self) -> float:
        """The p of the condition, 1 where it could not be tested or points the other way."""
        beyond = self.beyond
        if beyond is None or beyond.p is None or self.reason is not None or beyond.difference <= 0:
            return 1.0
        return beyond.p

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the sum."""
        if self.beyond is None:
            return None
        low, high = self.beyond.interval
        return low + self.condition.above, high + self.condition.above

    @property
    def asks(self) -> str:
        """What is asked, as a formula."""
        terms = [
            (f" {MINUS if weight < 0 else '+'} " if k else MINUS if weight < 0 else "")
            + ("" if abs(weight) == 1 else f"{abs(weight):g} · ")
            + name
            for k, (name, weight) in enumerate(self.condition.weights.items())
        ]
        return (
            f"{self.condition.figure}: {''.join(terms)} > {f'{self.condition.above:g}'.replace('-', MINUS)}"
        )


@dataclass(frozen=True)
class JudgedClaim:
    """A claim and what the runs say.

    Attributes:
        p_holm: Its p, corrected for all claims of the study.
    """

    claim: Claim
    conditions: Sequence[JudgedCondition]
    p_holm: float = 1.0

    @property
    def borne_out(self) -> bool:
        """Whether the runs bear the claim out."""
        return self.p_holm < SIGNIFICANT

    @property
    def tested(self) -> bool:
        """Whether every condition could be tested."""
        return all(one.beyond is not None and one.reason is None for one in self.conditions)

    def to_json(self) -> dict[str, Any]:
        """What study.json holds of it."""
        return {
            "says": self.claim.says,
            "borne_out": self.borne_out,
            "p_holm": self.p_holm,
            "conditions": [
                {
                    **one.condition.model_dump(),
                    "total": one.total,
                    "interval": one.interval,
                    "p": None if one.beyond is None else one.beyond.p,
                    "p_sign_flip": one.by_sign,
                    "seeds": one.beyond.seeds if one.beyond else None,
                    "reason": one.reason,
                }
                for one in self.conditions
            ],
        }


def check_claims(comparison: Comparison, claims: Sequence[Claim]) -> None:
    """See that the rows are there of which claims speak.

    Raises:
        UserError: One is not, or a name stands for several.
    """
    for number_, claim in enumerate(claims):
        for k, condition in enumerate(claim.conditions):
            for name in condition.weights:
                if len(named := _named(comparison, name)) != 1:
                    where = f"protocol.claims[{number_}].conditions[{k}].weights"
                    rows = listed([one.name for one in named or comparison.groups])
                    what = "stands for several rows" if named else "is none of the rows"
                    raise UserError(f"{where}: {name!r} {what}: {rows}.")


def judge(comparison: Comparison, claims: Sequence[Claim]) -> list[JudgedClaim]:
    """Test claims on finished runs, corrected for their number by Holm.

    A claim that cannot be tested counts with p = 1, so that it can make no other one easier.
    """
    judged = [
        JudgedClaim(claim, [_judged(comparison, condition) for condition in claim.conditions])
        for claim in claims
    ]
    corrected = holm([max(one.p for one in claim.conditions) for claim in judged])
    return [replace(claim, p_holm=p) for claim, p in zip(judged, corrected, strict=True)]


def sentences(judged: Sequence[JudgedClaim]) -> list[str]:
    """Each claim as a sentence with its numbers, those that are borne out first."""
    return [_sentence(one) for one in sorted(judged, key=lambda one: not one.borne_out)]


def _sentence(claim: JudgedClaim) -> str:
    if not claim.tested:
        word = "Stated before and not tested"
    elif claim.borne_out:
        word = "Stated before and borne out"
    else:
        word = "Stated before and not borne out"
    found = "; ".join(_numbers(one) for one in claim.conditions)
    return (
        f"{word}: {claim.claim.says.rstrip('.')} ({found}; {p_value(claim.p_holm)} after Holm’s correction)."
    )


def _numbers(one: JudgedCondition) -> str:
    if one.total is None or one.interval is None:
        return f"{one.asks}: {one.reason}"
    low, high = one.interval
    seeds = one.beyond.seeds if one.beyond else 1
    over = f" over {seeds} seeds" if seeds > 1 else ""
    why = f" (not tested: {one.reason})" if one.reason else ""
    return f"{one.asks}: {signed(one.total)}, {signed(low)} to {signed(high)}{over}{why}"


def _judged(comparison: Comparison, condition: Condition) -> JudgedCondition:
    groups = [_named(comparison, name) for name in condition.weights]
    runs = matched([named[0].finished if named else [] for named in groups], CONDITIONS)
    try:
        found = weighted(list(zip(condition.weights.values(), runs, strict=True)), condition.figure)
        total = sum(w * mean for w, mean in zip(condition.weights.values(), found.means, strict=True))
        above = condition.above
        by_seed = [value - above for value in found.by_seed]
        beyond = contrast(total, above, found.resampled - above, by_seed)
    except (UntestableError, ValueError) as reason:
        return JudgedCondition(condition, reason=str(reason))
    exact = 1 < len(by_seed) <= MOST_FLIPPED
    why = NO_SPREAD if beyond.p is None else ONE_SEED if beyond.seeds == 1 < comparison.seeds else None
    return JudgedCondition(condition, total, beyond, sign_flip(by_seed) if exact else None, why)


def _named(comparison: Comparison, name: str) -> list[Group]:
    """The rows that a name stands for: the one of that name, otherwise those of that method."""
    whole = [group for group in comparison.groups if group.name == name]
    return whole or [group for group in comparison.groups if group.method == name]
