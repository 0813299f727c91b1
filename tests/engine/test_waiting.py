"""The host never waits for the device inside a pass: nothing there depends on a computed value's content."""

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from forgetmenot.engine.flex import block_mask
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.trie import build_trie
from forgetmenot.prompting.encoded import TokenSequence


class Waits(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Collects the operators for which the host waits on a CUDA device: they read values, or size by them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_mask = func is torch.ops.aten.index.Tensor and any(
            index is not None and index.dtype == torch.bool for index in args[1]
        )
        reads = torch.Tag.data_dependent_output in func.tags
        sizes = torch.Tag.dynamic_output_shape in func.tags and func is not torch.ops.aten.index.Tensor
        if by_mask or reads or sizes:
            self.found.append(str(func))
        return func(*args, **(kwargs or {}))


def test_what_makes_the_host_wait_is_seen() -> None:
    with Waits() as waits:
        values = torch.arange(3)
        torch.masked_select(values, values > 1)
        values[values > 1]
        values.sum().item()
        values[torch.tensor([0, 1])]
    assert len(waits.found) == 3


def test_a_pass_does_not_wait(learner: Learner, sequences: list[TokenSequence]) -> None:
    learner.model.train()
    with Waits() as waits:
        learner.forward(sequences).sum().backward()  # type: ignore[no-untyped-call]
    assert waits.found == []


def test_neither_do_blocks(sequences: list[TokenSequence]) -> None:
    trie = build_trie([sequence.tokens for sequence in sequences])
    end, depth = torch.from_numpy(trie.end), torch.from_numpy(trie.depth)
    with Waits() as waits:
        block_mask(end, depth, 5)
    assert waits.found == []
