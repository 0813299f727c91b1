"""Scoring alone: the log-likelihood of every candidate, from texts, against lm-eval's Hugging Face model.

    python -m benchmarks.scoring --data-dir DATA --rows small/0 small/8

Every log-likelihood is compared first. No ratio is printed where one differs by more than the workload's
tolerance.
"""

from functools import partial

import numpy as np

from benchmarks.command import Bench, compare, run_command
from benchmarks.peers import LmEval, quiet
from benchmarks.table import Comparison
from benchmarks.timing import fastest
from benchmarks.workload import open_learner, tolerance
from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError


def main() -> None:
    """Measure the rows and print the table."""
    quiet()
    run_command("scoring", "Scoring alone, against lm-eval.", measure)


def measure(bench: Bench) -> Comparison:
    """Compare the two sides' log-likelihoods, count their work, and time them in turn.

    Raises:
        UserError: If they do not agree.
    """
    learner = open_learner(bench.workload, bench.model, bench.device)
    ours = partial(score, bench, learner)
    questions = [question for part in bench.material for question in part.questions()]

    def theirs(flags: dict[str, int]) -> list[list[float]]:
        return LmEval(learner.model, learner.tokenizer, dtype=learner.precision, **flags).score(questions)

    choice = fastest(bench.workload.peers.lm_eval, theirs, bench.clock, f"{bench.row}: lm-eval's batch")
    agree = partial(agreement, most=tolerance(bench.workload, bench.device).log_likelihood)
    models = learner.model, learner.model
    return compare(bench, ours, partial(theirs, choice), agree, models=models, flags=choice)


def score(bench: Bench, learner: Learner) -> list[list[float]]:
    """Our side: tokenize the row's examples, task by task, and score their candidates."""
    longest = bench.workload.training.max_length
    return [
        values.tolist()
        for part in bench.material
        for values in learner.score(part.encode(part.score, learner.tokenizer, longest))
    ]


def agreement(ours: list[list[float]], theirs: list[list[float]], most: float) -> str:
    """Say how nearly two sides' log-likelihoods agree.

    Raises:
        UserError: If one differs by more than `most` nats.
    """
    difference = max(
        float(np.abs(np.subtract(one, other)).max()) for one, other in zip(ours, theirs, strict=True)
    )
    if difference > most:
        raise UserError(
            f"the two sides' log-likelihoods differ by up to {difference:.1e} nats, which is more than "
            f"{most:.0e}: no ratio is given."
        )
    same = sum(np.argmax(one) == np.argmax(other) for one, other in zip(ours, theirs, strict=True))
    return f"Δ ≤ {difference:.0e} nats; {same} of {len(ours)} labels equal"


if __name__ == "__main__":
    main()
