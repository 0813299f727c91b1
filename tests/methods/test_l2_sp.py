"""The pull to the starting point: closed form, and which point that is."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from forgetmenot.errors import UserError
from forgetmenot.methods import Stage, make_method
from forgetmenot.methods.l2_sp import L2SP


@pytest.mark.parametrize("strength", [0.3, 50.0, 1e9])
def test_the_penalised_optimum_of_a_quadratic_lies_between(
    strength: float, weights: Callable[..., Any]
) -> None:
    """Of Σ aₖ/2 (wₖ − bₖ)² + α/2 ‖w − w⁰‖²: (a b + α w⁰) / (a + α), towards w⁰ as α grows."""
    double = weights([0.5, -1.0])
    method = L2SP(L2SP.Options(strength=strength))
    method.begin(double, Stage(1, ("t",)))
    a, b = torch.tensor([[2.0, 0.1], [3.0, 4.0]], dtype=torch.float64)
    expected = (a * b + strength * double.w.detach()) / (a + strength)
    with torch.no_grad():
        double.w.copy_(expected)
    penalty = method.penalty(double)
    assert penalty is not None
    (pull,) = torch.autograd.grad(penalty, double.w)
    assert torch.allclose(pull, -a * (expected - b), rtol=1e-5)


def test_the_anchor_is_the_stages_start_or_the_first_ones(weights: Callable[..., Any]) -> None:
    for anchor, expected in (("previous", 0.0), ("base", 0.5 * 9.0)):
        method, double = L2SP(L2SP.Options(strength=1.0, anchor=anchor)), weights([1.0])
        method.begin(double, Stage(1, ("t",)))
        state = method.state_dict()
        assert list(state) == ([] if anchor == "previous" else ["anchor.w"])
        with torch.no_grad():
            double.w += 3.0
        method.load_state_dict(state)
        method.begin(double, Stage(2, ("u",)))
        penalty = method.penalty(double)
        assert penalty is not None
        assert penalty.item() == expected


@pytest.mark.parametrize("wrong", [{"strength": -1}, {"anchor": "zero"}, {"alpha": 1}])
def test_options_out_of_bounds_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=rf"method\.{next(iter(wrong))}"):
        make_method("l2-sp", wrong, 0)
