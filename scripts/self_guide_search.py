"""One set of parameters for all tasks, as SELF-GUIDE searches it: temperature and epochs by the max-min rule.

    python -m scripts.self_guide_search MODEL OUT --data-dir D --tasks self-guide-classification-search

For every temperature each task is synthesized once, and the model is trained on its rows once for each number
of epochs (the official code takes the checkpoints of one training; a schedule that ends is our own choice).
Everything is scored on `select`; `score` is left for what is chosen. A search goes on where it was cut off.
"""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

from forgetmenot.config import load_config
from forgetmenot.record.files import write_json
from forgetmenot.report.screen import Screen
from forgetmenot.runs.api import run
from forgetmenot.synthesis.search import Parameters, max_min
from forgetmenot.tasks import expand
from forgetmenot.tasks.yaml_file import parse_yaml
from forgetmenot.trials.synthesis_folder import CONFIG
from forgetmenot.trials.synthesize import synthesize

TEMPERATURES = "0.6,0.7,0.8,0.9,1.0"
EPOCHS = (1, 2, 3)


def main() -> None:
    """Search, and print what is chosen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--tasks", default="self-guide-classification-search")
    parser.add_argument("--temperatures", default=TEMPERATURES)
    parser.add_argument("--set", action="append", default=[], metavar="key=value")
    given = parser.parse_args()
    settings = {key: parse_yaml(value) for key, _, value in (one.partition("=") for one in given.set)}
    console = Screen()
    scores: dict[Parameters, dict[str, float]] = defaultdict(dict)
    few_shot: dict[str, float] = {}
    for temperature in map(float, given.temperatures.split(",")):
        for task in expand(given.tasks.split(",")):
            folder = given.out / f"{task}-{temperature}"
            asked = {**settings, "temperature": temperature}
            synthesize(given.model, task, folder, data_dir=given.data_dir, settings=asked, console=console)
            for epochs in EPOCHS:
                changed = {
                    "training.epochs": epochs,
                    "evaluation.split": "select",
                    "evaluation.readings": [],
                    "output": str(folder / f"run-{epochs}"),
                }
                results: Any = run(load_config(folder / CONFIG, changed), console=console).results
                few_shot[task], scores[Parameters(epochs, temperature)][task] = (
                    row[0] for row in results["matrix"]
                )
    best, weakest, gain = max_min(scores, few_shot)
    found = [
        {**parameters._asdict(), "gains": {task: of_task[task] - few_shot[task] for task in few_shot}}
        for parameters, of_task in sorted(scores.items())
    ]
    write_json(given.out / "search.json", {"few_shot": few_shot, "searched": found, "chosen": best._asdict()})
    print(
        f"Temperature {best.temperature} and {best.epochs} epochs: no task gains less than {weakest}, "
        f"{100 * gain:+.1f} points over few shots. All of them: {given.out / 'search.json'}"
    )


if __name__ == "__main__":
    main()
