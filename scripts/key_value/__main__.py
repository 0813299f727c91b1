"""What recipes/key-value.yaml needs, made from nothing: `python -m scripts.key_value [FOLDER]`.

FOLDER (default key-value) gets the data, four tasks and four models, each a folder that `fmn run` takes:
`anchor`, `augmenting`, and two for the controls. `random` is an augmenting model that was never trained.
`encoder` is the augmenting model with a tokenizer that reads the question alone: whatever the anchor has
written behind it, it sees the same. A model that is there already is not trained again.
"""

import argparse
import shutil
from pathlib import Path

import torch

from scripts.key_value.models import (
    reads_the_question_alone,
    save,
    train_anchor,
    train_augmenting,
    untrained_augmenting,
)
from scripts.key_value.tasks import write_tasks
from scripts.key_value.world import make_world

AUGMENTING_STEPS, ANCHOR_STEPS = 450, 1200


def main() -> None:
    """Write the tasks, and train what is not there yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("key-value"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    folder, world = given.folder, make_world(given.seed)
    write_tasks(world, folder, given.seed)
    if not (folder / "augmenting").is_dir():
        print("The augmenting model:", flush=True)
        save(train_augmenting(world, AUGMENTING_STEPS, given.seed), folder / "augmenting")
    if not (folder / "anchor").is_dir():
        print("The anchor:", flush=True)
        save(train_anchor(ANCHOR_STEPS, given.seed), folder / "anchor")
    if not (folder / "random").is_dir():
        save(untrained_augmenting(world, given.seed + 1), folder / "random")
    shutil.copytree(folder / "augmenting", folder / "encoder", dirs_exist_ok=True)
    reads_the_question_alone().save_pretrained(folder / "encoder")
    print(f"Written to {folder}; next: fmn study recipes/key-value.yaml --workers 2")


if __name__ == "__main__":
    main()
