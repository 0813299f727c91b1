"""The conclusions of a comparison in sentences: who forgets least, whether by chance, what else matters."""

from collections.abc import Iterator, Sequence

from forgetmenot.record.results import SIGNIFICANT
from forgetmenot.report.comparison.claims import JudgedClaim, sentences
from forgetmenot.report.comparison.comparison import FINAL, Comparison, Effect, PairedTest
from forgetmenot.report.comparison.weighted import END, LOST
from forgetmenot.report.wording import NAMED_AT_MOST, left_out, listed, number, p_value, signed

EXPLORATORY = "What follows was not stated before the runs: it is exploratory."


def conclusions(comparison: Comparison, claims: Sequence[JudgedClaim] = ()) -> list[str]:
    """The answers that a reader came for, most important first; never empty.

    Args:
        comparison: The runs.
        claims: What was stated before them, judged.
    """
    found = [
        *([*sentences(claims), EXPLORATORY] if claims else ()),
        *([comparison.left_out] if comparison.left_out else ()),
        *_not_ranked(comparison),
        *_least_lost(comparison),
        *_significance(comparison),
        *_forgotten(comparison),
        *_ends_highest(comparison),
        *_sensitivity(comparison),
        *_not_learned(comparison),
        *_left_out(comparison),
        *_asked_again(comparison),
        *_failures(comparison),
    ]
    return found or ["No run has finished."]


def significant(test: PairedTest) -> bool:
    """Whether a test tells its two sides apart, after the correction for all tests of the comparison."""
    return test.p_holm is not None and test.p_holm < SIGNIFICANT


def _not_ranked(comparison: Comparison) -> Iterator[str]:
    """Which groups stand beside the ranking, and in it would have taken runs away from the others."""
    if comparison.not_ranked:
        named = [f"{one.name} ({_count(len(one.finished), 'run')})" for one in comparison.not_ranked]
        yield (
            f"Not ranked, because of too few orders, prompts and seeds beside the others’: {_some(named)}. "
            "Their tests are over the runs that they share with each."
        )


def _seeds(comparison: Comparison) -> int:
    """Over how many training seeds the ranked means are."""
    return len({run.key(["seed"]) for one in comparison.matched_groups for run in one.finished})


def _named(comparison: Comparison, name: str) -> str:
    """What a sentence speaks of: with one training seed of a checkpoint, with several of what made them."""
    return name if _seeds(comparison) > 1 else f"The checkpoint of {name}"


def _over(seeds: Sequence[int]) -> str:
    """What tests were over, of which each has a number of seeds."""
    few, many = min(seeds), max(seeds)
    if many == 1:
        return (
            "over the same examples and with one training seed, so that it speaks of these checkpoints alone"
        )
    return f"over {many if few == many else f'{few} to {many}'} seeds and the examples together"


def _alike(named: list[tuple[str, float]]) -> list[str]:
    """The names of the first value and of those that are printed as the same number: a tie has no winner."""
    return [name for name, value in named if number(value) == number(named[0][1])]


def _all_named(comparison: Comparison, names: list[str]) -> str:
    """What a sentence speaks of where several are alike."""
    several = _several(names)
    return several if _seeds(comparison) > 1 else f"The checkpoints of {several}"


def _least_lost(comparison: Comparison) -> Iterator[str]:
    ranked = comparison.ranked
    if not ranked:
        return
    figures = {one.name: found.mean for one in ranked if (found := one.spread(comparison.loss))}
    first = ranked[0]
    floor = first.noise_floor(comparison.loss)
    noise = f"; noise alone would show {number(floor)}" if floor is not None else ""
    subject = _named(comparison, first.name)
    forget, figure = ("forget", "Haque’s forgetting, ") if comparison.haque else ("lose", "")
    what = "a task" if comparison.haque else "a task since learning it"
    if len(ranked) == 1:
        yield f"{subject} {forget}s {number(figures[first.name])} {what} ({figure}mean){noise}."
        return
    least = _alike([(one.name, figures[one.name]) for one in ranked])
    rest = [f"{one.name} {number(figures[one.name])}" for one in ranked[len(least) :]]
    if len(rest) > NAMED_AT_MOST:
        rest = [*rest[:2], f"at most {rest[-1]}"]
    against = f" against {listed(rest)}" if rest else ""
    if len(least) > 1:
        subject = _all_named(comparison, least)
        how = f"{forget} alike" if not rest else f"{forget} alike and least"
    else:
        how = f"{forget}s least"
    yield (
        f"{subject} {how}: {number(figures[first.name])} {what} ({figure}mean over "
        f"{_count(len(first.finished), 'run')}){against}{noise}."
    )


def _forgotten(comparison: Comparison) -> Iterator[str]:
    """In how many runs which task was forgotten, by each run's own verdicts."""
    judged = [
        (one.name, verdicts)
        for one in comparison.groups
        if (
            verdicts := [run.results.verdicts for run in one.finished if run.results and run.results.verdicts]
        )
    ]
    for pair, since in (("base_end", "against the base model"), ("own_end", "since its own stage")):
        told, unsure = [], 0
        for name, runs in judged:
            found = [(task, one["decision"]) for run in runs for task, one in run.get(pair, {}).items()]
            unsure += sum(decision == "cannot tell" for _, decision in found)
            forgotten = [task for task, decision in found if decision == "forgotten"]
            if counts := [f"{task} in {forgotten.count(task)}" for task in dict.fromkeys(forgotten)]:
                told.append(f"{name}: {_some(counts)} of {_count(len(runs), 'run')}")
        if not any(run.get(pair) for _, runs in judged for run in runs):
            continue
        open_ = f"; in {unsure} it cannot be told" if unsure else ""
        if told:
            yield f"Forgotten {since}: {'; '.join(told)}{open_}."
        else:
            yield f"No task is shown to be forgotten {since} in any run{open_}."


def _significance(comparison: Comparison) -> Iterator[str]:
    """Whether the one that forgets least is told from each other one, by what each task lost."""
    ranked = comparison.ranked
    if len(ranked) < 2:
        return
    first, others = ranked[0], ranked[1:]
    if len(others) == 1:
        yield _one_test(comparison, comparison.test(first.name, others[0].name, LOST))
        return
    better, worse, open_, untested, alone = [list[str]() for _ in range(5)]
    tests = [comparison.test(first.name, other.name, LOST) for other in others]
    seeds = [test.contrast.seeds for test in tests if test.contrast]
    several = [count for count in seeds if count > 1]
    for test in tests:
        if test.contrast is None:
            untested.append(test.second)
        elif several and test.contrast.seeds == 1:
            alone.append(test.second)
        elif not significant(test):
            open_.append(test.second)
        else:
            (better if test.contrast.difference < 0 else worse).append(test.second)
    clauses = []
    it = "it" if _wins(comparison) else first.name
    if better:
        clauses.append(f"{it} lost significantly less than {_some(better)}")
    if worse:
        clauses.append(f"{'' if better else f'{it} lost '}significantly more than {_some(worse)}")
    if open_:
        of = "" if it == "it" else f" of {it}"
        clauses.append(f"no difference{of} to {_some(open_)} can be told from chance")
    if alone:
        clauses.append(f"with {_some(alone)} it shares one seed, and by that only checkpoints are compared")
    if untested:
        clauses.append(f"{_some(untested)} could not be tested against {it}")
    over = _over(several or seeds or [1])
    yield (
        f"By what each task lost since it was learned, {over}, {'; '.join(clauses)} "
        f"(Holm’s correction over {len(comparison.tests)} tests)."
    )


def _wins(comparison: Comparison) -> bool:
    """Whether one group alone is said to lose least."""
    means = [(one.name, found.mean) for one in comparison.ranked if (found := one.spread(comparison.loss))]
    return len(_alike(means)) == 1


def _one_test(comparison: Comparison, test: PairedTest) -> str:
    if test.contrast is None or test.values is None:
        what = "that is" if _wins(comparison) else "they differ by"
        return f"Whether {what} more than chance could not be tested: {test.reason}"
    judged, (mine, theirs) = test.contrast, test.values
    if not _wins(comparison):
        verdict = ("Tested without a maximum, " if comparison.haque else "Tested, ") + (
            "they differ significantly" if significant(test) else "no difference can be told from chance"
        )
    elif not significant(test):
        verdict = "That is not significant"
    elif judged.difference < 0:
        verdict = "That is significant"
    else:
        how = "Tested without a maximum" if comparison.haque else "Over the matched runs"
        verdict = f"{how} it is significantly the other way round"
    return (
        f"{verdict}, {_over([judged.seeds])}: "
        f"{test.first} lost {number(mine)} a task since learning it and "
        f"{test.second} {number(theirs)}, a difference of {signed(judged.difference)} (95 % interval "
        f"{signed(judged.interval[0])} to {signed(judged.interval[1])}, {p_value(test.p_holm)} after Holm’s "
        f"correction over {len(comparison.tests)} tests), and less in {test.lower} of {test.matched} matched "
        "pairs of runs."
    )


def _ends_highest(comparison: Comparison) -> Iterator[str]:
    known = [(one.spread(FINAL), one) for one in comparison.matched_groups]
    ends = sorted(((one.name, found.mean) for found, one in known if found), key=lambda end: -end[1])
    if len(ends) < 2:
        return
    highest = _alike(ends)
    if len(highest) > 1:
        how = "alike" if len(highest) == len(ends) else "highest, alike"
        yield f"{_all_named(comparison, highest)} end {how}, at a mean of {number(ends[0][1])}."
        return
    (first, top), (second, next_) = ends[:2]
    test = comparison.test(first, second, END)
    if test.contrast is None:
        told = "not tested whether by more than chance,"
    else:
        told = "significantly" if significant(test) else "not significantly"
    subject = _named(comparison, first)
    yield f"{subject} ends highest, at a mean of {number(top)}, {told} above {second} ({number(next_)})."


def _sensitivity(comparison: Comparison) -> Iterator[str]:
    """How much the prompt, the order and the seed matter."""
    loss = "forgetting" if comparison.haque else "the drop since learned"
    for key in ("prompt", "order"):
        if key not in comparison.keys:
            continue
        final, forgotten = (comparison.effect(key, figure) for figure in (FINAL, comparison.loss))
        if final is None or forgotten is None:
            yield f"How much the {key} matters is open: no other setting has all its runs."
            continue
        low, high = sorted(final.levels, key=lambda level: final.levels[level])[:: len(final.levels) - 1]
        pairs = [test for test in comparison.tests if test.factor == key and test.figure == END]
        told = [test for test in pairs if significant(test)]
        yield (
            f"The {key} moves the final mean by {number(final.range)} ({_from(low, high, final, key)}) and "
            f"{loss} by {number(forgotten.range)} a task{_shares(final, forgotten)}; "
            f"{len(told)} of {len(pairs)} pairs of {key}s differ significantly in the final mean."
        )
    final_noise, noise = (comparison.seed_deviation(figure) for figure in (FINAL, comparison.loss))
    if final_noise is not None and noise is not None:
        yield (
            f"The seed alone, all else equal, has a standard deviation of {number(final_noise)} in the final "
            f"mean and {number(noise)} in {loss}."
        )


def _from(low: str, high: str, effect: Effect, key: str) -> str:
    names = ("lowest", "highest") if key == "order" else (low, high)  # an order is too long for a sentence
    return f"{names[0]} {number(effect.levels[low])}, {names[1]} {number(effect.levels[high])}"


def _shares(final: Effect, forgotten: Effect) -> str:
    if final.share is None or forgotten.share is None:
        return ""
    return f", which is {final.share:.0%} and {forgotten.share:.0%} of all variance among the runs"


def _not_learned(comparison: Comparison) -> Iterator[str]:
    """Who did not learn can forget nothing: said beside who forgets least."""
    clauses = [
        f"{one.name} on {listed([f'{task} in {times}' for task, times in one.not_learned.items()])} of "
        + _count(len(one.finished), "run")
        for one in comparison.groups
        if one.not_learned
    ]
    if clauses:
        yield (
            "What is not learned cannot be forgotten; not above chance after its own stage: "
            f"{'; '.join(clauses)}."
        )


def _left_out(comparison: Comparison) -> Iterator[str]:
    """What no average holds: said once for each sentence that a run has on it."""
    yield from dict.fromkeys(
        told for run in comparison.finished if run.results and (told := left_out(run.results))
    )


def _asked_again(comparison: Comparison) -> Iterator[str]:
    """The largest share of answers that asking again has changed, where answers are generated."""
    shares = [
        (again["different"] / again["n"], task, run.name)
        for run in comparison.finished
        if run.results
        for task, again in run.results.asked_again.items()
    ]
    if shares and (largest := max(shares))[0] > 0:
        share, task, run = largest
        yield (
            f"Asked again in another order and batch size, base models answer up to {share:.0%} of the "
            f"examples otherwise ({task} in {run}): smaller differences are noise."
        )


def _failures(comparison: Comparison) -> Iterator[str]:
    if comparison.failures:
        failed = sum(map(len, comparison.failures.values()))
        runs = _count(len(comparison.runs), "run")
        yield f"{failed} of {runs} failed; the reasons are at the end of the page."


def _some(names: list[str]) -> str:
    return listed(names) if len(names) <= NAMED_AT_MOST else f"{len(names)} others"


def _several(names: list[str]) -> str:
    return (
        listed(names) if len(names) <= NAMED_AT_MOST else f"{listed(names[:2])} and {len(names) - 2} others"
    )


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("s" if n != 1 else "")
