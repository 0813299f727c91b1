"""Agreement of bf16 with fp32: scores the tasks of the workload in both, and counts equal answers.

    python -m benchmarks.agreement --data-dir DATA --model MODEL [--limit 500]

The model's weights are fp32 and its activations one or the other, as a run on a CPU has them; the few rows of
logits that are scored are fp32 in both. Prints the share of equal answers for each task, and the largest
difference of a log-likelihood.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from benchmarks.workload import read_workload
from forgetmenot.config import load_config
from forgetmenot.engine.attention import choose_attention, use_attention
from forgetmenot.engine.learner import Learner
from forgetmenot.engine.pack import node_budget
from forgetmenot.evaluation.readings import scored_task
from forgetmenot.models.load import load_model
from forgetmenot.models.settings import ModelSettings
from forgetmenot.prompting import choose_prompt
from forgetmenot.tasks import load_tasks

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def main() -> None:
    """Score in both and print the table."""
    workload = read_workload()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--limit", type=int, default=500, help="examples of each task")
    given = parser.parse_args()
    config = load_config(None, {"model": given.model, "evaluation.limit": given.limit})
    learner = open_learner(given.model)
    table = Table("task", "examples", "equal answers", "Δ log-likelihood (nats)", title=given.model)
    equal = total = 0
    for task in load_tasks(workload.tasks, given.data_dir):
        prompt = choose_prompt(task, workload.prompt)
        asked = scored_task(config.asking, task, prompt, learner.tokenizer, workload.training.max_length)
        learner.precision = "fp32"
        exact = np.array(learner.score(asked.encoded))
        learner.precision = "bf16"
        rounded = np.array(learner.score(asked.encoded))
        same = exact.argmax(1) == rounded.argmax(1)
        equal, total = equal + int(same.sum()), total + len(same)
        table.add_row(task.name, f"{len(same)}", f"{same.mean():.2%}", f"{np.abs(exact - rounded).max():.3f}")
    table.add_row("all", f"{total}", f"{equal / total:.2%}", "", style="bold")
    Console().print(table)


def open_learner(model: str) -> Learner:
    """The model in fp32."""
    loaded = load_model(ModelSettings(name=model, dtype="fp32"), trainable=False, device=DEVICE)
    attention = choose_attention("auto", DEVICE, loaded.model)
    use_attention(loaded.model, attention)
    budget = node_budget(DEVICE.type, attention, torch.get_num_threads())
    return Learner(loaded.model, loaded.tokenizer, budget)


if __name__ == "__main__":
    main()
