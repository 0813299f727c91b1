"""Each benchmark compares the two sides' answers on a tiny model before it times anything."""

from collections.abc import Callable

import pytest
import torch

pytest.importorskip("trl", reason="trl is not installed: pip install '.[bench]'")

from benchmarks import scoring, training, whole_run
from benchmarks.command import Bench
from benchmarks.peers import quiet
from benchmarks.table import Comparison
from benchmarks.workload import Tolerance, open_learner
from forgetmenot.errors import UserError
from forgetmenot.models.adapt import adapt

MakeBench = Callable[[int], Bench]
TOLERANCE = Tolerance(log_likelihood=1e-4, first_loss=1e-4, weights=0.02, score=0.0)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    torch.set_num_threads(1)
    quiet()


def less_work(found: Comparison) -> bool:
    return found.ours.positions < found.theirs.positions and found.ours.head_rows < found.theirs.head_rows


@pytest.mark.parametrize("shots", [0, 2])
def test_scoring_agrees_with_lm_eval(bench: MakeBench, shots: int) -> None:
    found = scoring.measure(bench(shots))
    assert "12 of 12 labels equal" in found.answers
    assert less_work(found)
    assert found.theirs.head_rows == found.theirs.positions, "lm-eval multiplies the head everywhere"
    assert found.flags == "batch_size=4"


def test_scoring_refuses_other_answers() -> None:
    assert "2 of 2 labels equal" in scoring.agreement([[-1.0, -2.0], [-3.0]], [[-1.0, -2.0], [-3.0]], 1e-4)
    with pytest.raises(UserError, match="no ratio is given"):
        scoring.agreement([[-1.0, -2.0]], [[-1.0, -2.01]], 1e-3)


def test_training_agrees_with_trl(bench: MakeBench) -> None:
    found = training.measure(bench(0))
    assert found.answers.startswith("first loss Δ ")
    assert less_work(found)


def test_training_refuses_another_loss_and_other_weights() -> None:
    start, end = {"w": torch.zeros(3)}, {"w": torch.ones(3)}
    training.agreement(2.0, 2.0, start, end, {"w": torch.ones(3) * 1.01}, TOLERANCE)
    with pytest.raises(UserError, match="no ratio is given"):
        training.agreement(2.0, 2.1, start, end, end, TOLERANCE)
    with pytest.raises(UserError, match="no ratio is given"):
        training.agreement(2.0, 2.0, start, end, {"w": torch.ones(3) * 1.1}, TOLERANCE)


def test_our_order_is_what_trl_is_given(bench: MakeBench) -> None:
    one = bench(0)
    workload = one.workload
    learner = open_learner(workload, one.model, one.device)
    learner.model = adapt(learner.model, workload.adapter, 1, workload.seed)
    examples = one.material[0].encode(one.material[0].train, learner.tokenizer, 128)
    steps = training.train(workload, learner, examples)
    assert [step.examples for step in steps] == [8, 4]
    order = training.order(workload, len(examples), workload.seed)
    assert sorted(order) == list(range(12))
    first = [len(examples[k].answer.tokens) - examples[k].answer.start for k in order[:8]]
    assert steps[0].tokens == sum(first)


@pytest.mark.slow
def test_a_whole_run_finds_the_same_matrix(bench: MakeBench) -> None:
    found = whole_run.measure(bench(0))
    assert found.answers == "score matrix Δ ≤ 0.000"
    # Half of the positions of so small a run are the guard's, so that they are more than the peers'.
    assert found.ours.head_rows < found.theirs.head_rows
    assert found.ours.flops < found.theirs.flops
