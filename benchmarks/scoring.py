"""Scoring alone: the log-likelihood of every candidate, from texts, against lm-eval's Hugging Face model.

    python -m benchmarks.scoring --data-dir DATA --rows small/0 small/8
    python -m benchmarks.scoring --data-dir DATA --models MODELS --rows smollm2/0 smollm2/0/top/bf16

Every log-likelihood is compared first. No ratio is printed where one differs by more than the workload's
tolerance. Where only the upper layers learn, two rows of a run's score matrix are timed: the first, for which
the states of the lower layers are computed and kept, and a later one, which reads them and has everything
laid out already, as in a run. The peer computes all layers each time.
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import numpy as np

from benchmarks.command import Bench, compare, run_command
from benchmarks.lower_layers import LowerLayers
from benchmarks.ours import Answers, candidates, same_likelihoods
from benchmarks.peers import LmEval, quiet
from benchmarks.table import Comparison
from benchmarks.timing import fastest
from benchmarks.workload import open_learner
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import Arrangement
from forgetmenot.prompting import Encoded


def main() -> None:
    """Measure the rows and print the table."""
    quiet()
    run_command("scoring", "Scoring alone, against lm-eval.", measure)


def measure(bench: Bench) -> Comparison:
    """Compare the two sides' log-likelihoods, count their work, and time them in turn.

    Raises:
        UserError: If they do not agree.
    """
    workload = bench.workload
    learner, peer = (open_learner(workload, bench.model, bench.device, peer=peer) for peer in (False, True))
    questions = [question for part in bench.material for question in part.questions()]

    def theirs(flags: dict[str, int]) -> Answers:
        return LmEval(peer.model, peer.tokenizer, dtype=peer.precision, **flags).score(questions)

    choice = fastest(workload.peers.lm_eval, theirs, bench.clock, f"{bench.row}: lm-eval's batch")

    def agree(ours: list[Answers], their: Answers) -> str:
        return [same_likelihoods(one, their, workload.tolerated.log_likelihood) for one in ours][-1]

    ours = [partial(score, bench, learner)] if bench.row.layers == "all" else rows_of_a_run(bench, learner)
    models = learner.model, peer.model
    return compare(bench, ours, partial(theirs, choice), agree, models=models, flags=choice)


def encode(bench: Bench, learner: Learner) -> list[list[Encoded]]:
    """The row's examples as our side's tokens, task by task."""
    longest = bench.workload.training.max_length
    return [list(part.encode(part.score, learner.tokenizer, longest)) for part in bench.material]


def score(bench: Bench, learner: Learner) -> Answers:
    """Our side: tokenize the row's examples, task by task, and score their candidates."""
    return [values.tolist() for some in encode(bench, learner) for values in learner.score(some)]


def rows_of_a_run(bench: Bench, learner: Learner) -> list[Callable[[], Answers]]:
    """Our side where only the upper layers learn: the first row of a run's matrix, and a later one."""
    examples = encode(bench, learner)
    bounds = np.cumsum([0] + [len(one.candidates) for some in examples for one in some]).tolist()
    names = [part.task.name for part in bench.material]
    asked = dict(zip(names, map(candidates, examples), strict=True))
    lower = LowerLayers.of(learner, bench.workload.adapter.layers, asked, bench.folder / "lower-layers")
    arranged: list[Arrangement] = []

    def first() -> Answers:
        sequences = map(candidates, encode(bench, learner))
        lower.compute()
        arranged[:] = map(learner.arrange, sequences)
        return later()

    def later() -> Answers:
        flat = np.concatenate([learner.log_likelihoods(one).numpy() for one in arranged])
        return [flat[begin:end].tolist() for begin, end in pairwise(bounds)]

    return [first, later]


if __name__ == "__main__":
    main()
