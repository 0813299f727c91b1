"""O-LoRA's overlap against its definition, and what it does to adapters that learn."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch

from forgetmenot.engine.learner import Learner
from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.o_lora import extended, learning_rows, overlap
from forgetmenot.models.adapt import adapt, finish_stage
from forgetmenot.models.settings import AdapterSettings

Adapted = Callable[..., Learner]
WIDTH, RANK = 24, 4


def _rows(seed: int, count: int = RANK) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed))


def test_the_overlap_is_the_mean_squared_cosine_with_the_earlier_subspace() -> None:
    """Each row's angle to the span, by SciPy's principal angles."""
    earlier, rows = [_rows(1), _rows(2)], _rows(3)
    span = np.concatenate([one.numpy() for one in earlier]).T
    angles = [scipy.linalg.subspace_angles(span, row.numpy()[:, None])[0] for row in rows]
    basis = extended(extended(None, earlier[0]), earlier[1])
    assert float(overlap(basis, rows)) == pytest.approx(float(np.mean(np.cos(angles) ** 2)), rel=1e-4)


def test_it_is_the_papers_penalty_up_to_scale_where_rows_are_orthonormal() -> None:
    """‖A_old A_newᵀ‖² / r."""
    old, new = (torch.linalg.qr(_rows(seed).T).Q.T for seed in (1, 2))
    assert float(overlap(extended(None, old), new)) == pytest.approx(
        float((old @ new.T).square().sum() / RANK), rel=1e-5
    )


def test_it_is_0_apart_and_1_within_at_any_scale() -> None:
    basis = extended(None, _rows(1))
    rows = _rows(2)
    within = _rows(3, RANK)[:, :RANK] @ basis
    apart = rows - rows @ basis.T @ basis
    for scale in (1e-3, 1.0, 1e3):
        assert float(overlap(basis, scale * within)) == pytest.approx(1, abs=1e-5)
        assert float(overlap(basis, scale * apart)) == pytest.approx(0, abs=1e-10)
    random = float(torch.stack([overlap(basis, _rows(k)) for k in range(10, 200)]).mean())
    assert random == pytest.approx(RANK / WIDTH, rel=0.1)


def test_a_full_width_leaves_nothing_to_be_orthogonal_to() -> None:
    basis = extended(extended(None, _rows(1, 20)), _rows(2, 20))
    assert basis.shape == (WIDTH, WIDTH)
    rows = _rows(3).requires_grad_()
    value = overlap(basis, rows)
    value.backward()  # type: ignore[no-untyped-call]
    assert float(value.detach()) == pytest.approx(1, abs=1e-5)
    assert rows.grad is not None
    assert float(rows.grad.abs().max()) < 1e-6


@pytest.mark.parametrize("per_stage", ["new", "merge"])
def test_learning_by_the_penalty_alone_makes_adapters_orthogonal(adapted: Adapted, per_stage: str) -> None:
    settings = AdapterSettings(per_stage=per_stage)
    learner = adapted(per_stage=per_stage)
    method = make_method("o-lora", {"strength": 1}, 0)
    method.begin(learner, Stage(1, ("animal",)))
    assert method.penalty(learner) is None
    first = {layer: rows.detach().clone() for layer, rows in learning_rows(learner).items()}
    assert len(first) == 2 * 7
    method.end(learner, Stage(1, ("animal",)))
    learner.model = adapt(finish_stage(learner.model, settings), settings, 2, seed=1)
    method.begin(learner, Stage(2, ("colour",)))
    optimizer = torch.optim.SGD(learner.trainable().values(), lr=10)
    values = []
    for _ in range(100):
        penalty = method.penalty(learner)
        assert penalty is not None
        values.append(float(penalty.detach()))
        optimizer.zero_grad()
        penalty.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert 0.1 < values[0] < 0.5  # rank 8 of width 32 or 64
    assert values[-1] < 1e-3
    for layer, rows in learning_rows(learner).items():
        cosines = torch.nn.functional.cosine_similarity(rows[:, None], first[layer][None], dim=-1)
        assert float(cosines.detach().abs().max()) < 0.1


def test_its_state_comes_back(adapted: Adapted) -> None:
    learner = adapted(per_stage="new")
    method = make_method("o-lora", {}, 0)
    method.end(learner, Stage(1, ("animal",)))
    again = make_method("o-lora", {}, 0)
    again.load_state_dict(method.state_dict())
    one, other = method.penalty(learner), again.penalty(learner)
    assert one is not None
    assert other is not None
    assert torch.equal(one, other)
    assert float(one.detach()) == pytest.approx(method.options.strength, rel=1e-5)  # with itself


@pytest.mark.parametrize("settings", [{"per_stage": "continue"}, {"kind": "full"}])
def test_it_needs_adapters_of_their_own(settings: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"adapter\.(kind|per_stage): this method works with"):
        make_method("o-lora", {}, 0).check(AdapterSettings(**settings))


def test_a_negative_strength_is_refused() -> None:
    with pytest.raises(UserError, match=r"method\.strength: .*greater than or equal to 0"):
        make_method("o-lora", {"strength": -1}, 0)
