from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.command import Bench
from benchmarks.workload import ModelRows, Row, Sizes, read_material, read_workload


@pytest.fixture
def bench(tiny_llama: Path, tiny_tasks: dict[str, Path], tmp_path: Path) -> Callable[[int], Bench]:
    """A row of the tiny model and two tiny tasks with so many demonstrations: bench(shots)."""
    import torch

    def make(shots: int) -> Bench:
        settings = read_workload()
        workload = settings.model_copy(
            update={
                "tasks": [str(tiny_tasks[name]) for name in ("animal", "size")],
                "pairs": 1,
                "training": settings.training.model_copy(update={"batch_size": 8}),
                "models": {"small": ModelRows(sizes={shots: Sizes(score=6, train=12)})},
                "peers": settings.peers.model_copy(
                    update={
                        "lm_eval": [{"batch_size": 4}],
                        "trl": settings.peers.trl.model_copy(
                            update={"choices": [{"padding_free": True, "per_device_train_batch_size": 4}]}
                        ),
                    }
                ),
            }
        )
        row = Row("small", shots)
        return Bench(
            workload=workload,
            row=row,
            model=tiny_llama,
            called="tiny-llama",
            material=read_material(workload, row, None),
            data_dir=None,
            device=torch.device("cpu"),
            clock="cpu",
            folder=tmp_path,
        )

    return make
