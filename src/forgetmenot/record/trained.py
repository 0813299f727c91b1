"""What says that a stage's training is done while the stage is scored, and is not done again."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from forgetmenot.record.cost import Parts, read_cost
from forgetmenot.record.damage import damaged
from forgetmenot.record.files import write_json
from forgetmenot.record.layout import COST, TRAINED
from forgetmenot.record.seal import differing, digest_of, entries, parse


@dataclass(frozen=True)
class Trained:
    """What training has left in a stage's folder.

    Attributes:
        files: Size and SHA-256 of each file.
        seconds: How long it took.
        cost: The content of cost.json, which is no file of it: scoring adds to that.
    """

    files: dict[str, dict[str, Any]]
    seconds: float
    cost: Parts

    def names(self) -> set[str]:
        """What lies in the stage's folder itself: files, and folders with some."""
        return {Path(name).parts[0] for name in self.files}


def write_trained(folder: Path, seconds: float) -> None:
    """Say that what is in a stage's folder is its whole training."""
    files = {name: entry for name, entry in entries(folder).items() if name != COST}
    content = asdict(Trained(files, seconds, read_cost(folder)))
    write_json(folder / TRAINED, {**content, "sha256": digest_of(content)})


def read_trained(folder: Path) -> Trained | None:
    """What was said of a stage's folder; None if nothing was.

    Raises:
        UserError: That, or a file that it names, is not as it was written.
    """
    path = folder / TRAINED
    if not path.exists():
        return None
    try:
        content = parse(path, path.read_bytes(), dict)
        digest = content.pop("sha256", None)
        found = Trained(**content)
    except (OSError, TypeError) as error:
        raise damaged(path, f"it cannot be read ({error})") from error
    if digest != digest_of(content):
        raise damaged(path, "its own SHA-256 is another")
    for name in differing(folder, found.files):
        raise damaged(folder / name, "it is not what training wrote")
    return found
