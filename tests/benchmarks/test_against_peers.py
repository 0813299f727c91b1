"""Each benchmark compares the two sides' answers on a tiny model before it times anything."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

pytest.importorskip("trl", reason="trl is not installed: pip install '.[bench]'")

from benchmarks import memory, ours, scoring, training, whole_run
from benchmarks.command import Bench, own_sizes
from benchmarks.memory import Peak
from benchmarks.peers import quiet
from benchmarks.table import COLUMNS, Comparison
from benchmarks.workload import Row, Sizes, Tolerance, open_learner, read_workload
from forgetmenot.errors import UserError
from forgetmenot.models.adapt import adapt

MakeBench = Callable[[Row], Bench]
TOLERANCE = Tolerance(log_likelihood=1e-4, first_loss=1e-4, weights=0.02, score=0.0)


@pytest.fixture(autouse=True)
def _quiet() -> None:
    torch.set_num_threads(1)
    quiet()


def less_work(found: Comparison) -> bool:
    return all(
        way.work.positions < found.theirs.positions and way.work.head_rows < found.theirs.head_rows
        for way in found.ways
    )


@pytest.mark.parametrize("shots", [0, 2])
def test_scoring_agrees_with_lm_eval(bench: MakeBench, shots: int) -> None:
    found = scoring.measure(bench(Row("small", shots)))
    assert "12 of 12 labels equal" in found.answers
    assert less_work(found)
    assert found.theirs.head_rows == found.theirs.positions, "lm-eval multiplies the head everywhere"
    assert found.flags == "batch_size=4"


def test_a_later_row_of_a_run_computes_the_upper_layers_alone(bench: MakeBench) -> None:
    [plain] = scoring.measure(bench(Row("small", 0))).ways
    found = scoring.measure(bench(Row("small", 0, "top")))
    assert "12 of 12 labels equal" in found.answers
    first, later = found.ways
    assert later.work.flops < plain.work.flops < first.work.flops + later.work.flops
    assert found.layers == "top 1"


def test_scoring_refuses_other_answers() -> None:
    assert "2 of 2 labels equal" in ours.same_likelihoods(
        [[-1.0, -2.0], [-3.0]], [[-1.0, -2.0], [-3.0]], 1e-4
    )
    with pytest.raises(UserError, match="no ratio is given"):
        ours.same_likelihoods([[-1.0, -2.0]], [[-1.0, -2.01]], 1e-3)


@pytest.mark.parametrize("layers", ["all", "top"])
def test_training_agrees_with_trl(bench: MakeBench, layers: str) -> None:
    found = training.measure(bench(Row("small", 0, "top" if layers == "top" else "all")))
    assert found.answers.startswith("first loss Δ ")
    assert less_work(found) or layers == "top", "the first time computes the lower layers' states as well"
    assert len(found.ways) == (2 if layers == "top" else 1)
    assert found.ways[-1].work.flops <= found.ways[0].work.flops


@pytest.mark.slow  # half an hour on a processor that has no bf16 of its own
def test_bf16_agrees_with_the_peers(bench: MakeBench) -> None:
    row = Row("small", 0, "top", "bf16")
    assert "of 12 labels equal" in scoring.measure(bench(row)).answers
    assert training.measure(bench(row)).answers.startswith("first loss Δ ")


def test_training_refuses_another_loss_and_other_weights() -> None:
    start, end = {"w": torch.zeros(3)}, {"w": torch.ones(3)}
    ours.same_training(2.0, 2.0, start, end, {"w": torch.ones(3) * 1.01}, TOLERANCE)
    with pytest.raises(UserError, match="no ratio is given"):
        ours.same_training(2.0, 2.1, start, end, end, TOLERANCE)
    with pytest.raises(UserError, match="no ratio is given"):
        ours.same_training(2.0, 2.0, start, end, {"w": torch.ones(3) * 1.1}, TOLERANCE)


def test_our_order_is_what_trl_is_given(bench: MakeBench) -> None:
    one = bench(Row("small", 0))
    workload = one.workload
    learner = open_learner(workload, one.model, one.device)
    learner.model = adapt(learner.model, workload.adapter, 1, workload.seed)
    examples = one.material[0].encode(one.material[0].train, learner.tokenizer, 128)
    steps = ours.train(workload, learner, examples)
    assert [step.examples for step in steps] == [8, 4]
    order = ours.order(workload, len(examples), workload.seed)
    assert sorted(order) == list(range(12))
    first = [len(examples[k].answer.tokens) - examples[k].answer.start for k in order[:8]]
    assert steps[0].tokens == sum(first)


def test_a_whole_run_takes_more_examples_than_a_row_of_its_parts() -> None:
    workload = read_workload()
    assert whole_run.sizes(workload, Row("smollm2", 0)) == Sizes(score=200, train=400)
    assert whole_run.sizes(workload, Row("small", 0)) == own_sizes(workload, Row("small", 0))


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["all", "top"])
def test_a_whole_run_finds_the_same_matrix(bench: MakeBench, layers: str) -> None:
    one = bench(Row("small", 0, "top" if layers == "top" else "all"))
    measured = whole_run.measure(replace(one, workload=one.workload.model_copy(update={"repeats": 0})))
    found = measured.comparison
    assert found.answers == "score matrix Δ ≤ 0.000 (8 + 4 examples a task); timed while counted"
    # on so few examples the guard's passes outweigh what is shared, but not what the head is spared
    assert all(way.work.head_rows < found.theirs.head_rows for way in found.ways)
    assert 0 < measured.around < 1
    if layers == "top":
        assert found.ways[1].work.flops < found.ways[0].work.flops, "the second run reads the states"
    assert len(measured.cells()) == len(COLUMNS) + 1


@pytest.mark.slow
@pytest.mark.parametrize("layers", ["all", "top"])
def test_memory_is_measured_with_every_setting(bench: MakeBench, layers: str) -> None:
    one = bench(Row("small", 0, "top" if layers == "top" else "all"))
    settings = one.workload.memory.model_copy(
        update={
            "ours": [{"micro_batch": 2, "activation_checkpointing": True}],
            "trl": [
                {"gradient_checkpointing": on, "padding_free": True, "per_device_train_batch_size": 4}
                for on in (False, True)
            ],
        }
    )
    one = replace(one, workload=one.workload.model_copy(update={"memory": settings}))
    cells = dict(zip(memory.COLUMNS, memory.measure(one).cells(), strict=True))
    assert cells["settings"] == "micro_batch=2, activation_checkpointing=True"
    assert float(cells["TRL, checkpointing (MiB)"]) > 0
    assert cells["layers"] == one.layers


def test_our_leanest_setting_may_not_take_longer_than_allowed() -> None:
    lean, quick = Peak({"micro_batch": 2}, 50, 9), Peak({"micro_batch": 8}, 80, 5)
    assert memory.chosen([lean, quick], 10) is lean
    assert memory.chosen([lean, quick], 6) is quick
    assert memory.chosen([lean, quick], 4) is quick
