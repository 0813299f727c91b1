from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.command import Bench
from benchmarks.workload import ModelRows, Row, Sizes, read_material, read_workload


@pytest.fixture
def bench(tiny_llama: Path, tiny_tasks: dict[str, Path], tmp_path: Path) -> Callable[[Row], Bench]:
    """A row of the tiny model, of which one layer of two is the top, and two tiny tasks: bench(row)."""
    import torch

    def make(row: Row) -> Bench:
        settings = read_workload()
        sizes = Sizes(score=6, train=12)
        choices = [{"padding_free": True, "per_device_train_batch_size": 4}]
        peers = {
            "lm_eval": [{"batch_size": 4}],
            "trl": settings.peers.trl.model_copy(update={"choices": choices}),
        }
        trial = Sizes(score=4, train=8)
        workload = settings.model_copy(
            update={
                "tasks": [str(tiny_tasks[name]) for name in ("animal", "size")],
                "repeats": 1,
                "training": settings.training.model_copy(update={"batch_size": 8}),
                "models": {"small": ModelRows(top=1, sizes={row.shots: sizes}, trial=trial)},
                "peers": settings.peers.model_copy(update=peers),
            }
        ).of(row)
        return Bench(
            workload=workload,
            row=row,
            sizes=sizes,
            model=tiny_llama,
            called="tiny-llama",
            material=read_material(workload, row.shots, sizes, None),
            data_dir=None,
            device=torch.device("cpu"),
            clock="cpu",
            folder=tmp_path,
        )

    return make
