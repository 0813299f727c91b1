"""Attention in chunks: our plain products against PyTorch's fused kernel for CPUs, in time and in error.

    python -m benchmarks.attention [--repeats 20] [--write]

One layer of SmolLM2-135M over a pack of 1,024 positions in chunks, each against so many keys, of which a mask
hides half. Both compute in turn; *times* are the medians of the pairs' ratios, the kernel's seconds divided
by ours, and an error is the norm of the difference from fp64 over that of the truth, the largest of output
and gradients. `forgetmenot.engine.attended.MOST` follows from it.
"""

import argparse
from collections.abc import Callable
from functools import partial
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.table import Cells, machine, render, write
from benchmarks.timing import Pairs, in_turn
from forgetmenot.engine.attended import attend
from forgetmenot.engine.chunked import CHUNK

HEADS, GROUPS, SIZE, POSITIONS = 9, 3, 64, 1024
KEYS = (100, 200, 400, 800)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
COLUMNS: Cells = (
    *("machine", "dtype", "keys", "scoring ×", "training ×", "scoring (ms)", "training (ms)"),
    *("error", "the kernel's"),
)
How = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def main() -> None:
    """Time both for each dtype and number of keys, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--write", action="store_true", help="put the rows into docs/performance.md")
    given = parser.parse_args()
    rows = [measure(name, keys, given.repeats) for name, keys in product(DTYPES, KEYS)]
    print(render(rows, COLUMNS), end="")
    for row in rows if given.write else ():
        write("attention", row, COLUMNS, key=3)


def measure(name: str, keys: int, repeats: int) -> Cells:
    """A row of the table."""
    dtype, chunks = DTYPES[name], POSITIONS // CHUNK
    torch.manual_seed(0)
    mask = torch.zeros(chunks, 1, CHUNK, keys).masked_fill(
        torch.rand(chunks, 1, CHUNK, keys) < 0.5, -torch.inf
    )
    mask[..., 0] = 0
    query, gradient = (torch.randn(chunks, HEADS, CHUNK, SIZE).to(dtype) for _ in range(2))
    within = [torch.randn(chunks, keys, GROUPS, SIZE).to(dtype).transpose(1, 2) for _ in range(2)]
    leaves = [one.requires_grad_() for one in (2 * query, *within)]

    def found(how: How, wide: torch.dtype = dtype) -> list[Tensor]:
        own = [one.detach().to(wide).requires_grad_() for one in leaves]
        out = how(own[0], own[1], own[2], mask, SIZE**-0.5)
        return [out.detach(), *torch.autograd.grad(out, own, gradient.to(wide))]

    def score(how: How) -> None:
        with torch.no_grad():
            how(leaves[0], leaves[1], leaves[2], mask, SIZE**-0.5)

    truth = found(fused, torch.float64)
    cells: list[str] = []
    seconds: list[str] = []
    for work in (score, found):
        ours, kernel = in_turn(
            [partial(work, attend), partial(work, fused)],
            repeats=repeats,
            clock="wall",
            title=f"{name}, {keys} keys",
        )
        cells.append(f"**{Pairs(ours, kernel).ratio:.1f}**")
        seconds.append(f"{1e3 * sorted(ours)[repeats // 2]:.1f}")
    errors = [f"{max(map(apart, found(how), truth)):.1e}" for how in (attend, fused)]
    return (machine(torch.device("cpu")), name, str(keys), *cells, *seconds, *errors)


def fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scale: float) -> Tensor:
    """PyTorch's own."""
    return F.scaled_dot_product_attention(
        query, key, value, attn_mask=mask.to(query.dtype), scale=scale, enable_gqa=True
    )


def apart(one: Tensor, truth: Tensor) -> float:
    """How far from the truth, as a share of it."""
    return float((one.double() - truth).norm() / truth.norm())


if __name__ == "__main__":
    main()
