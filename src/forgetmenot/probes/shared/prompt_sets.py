"""Sets of prompts for probes: TRACE's by name, or a user's own files."""

import json
from pathlib import Path

from forgetmenot.errors import UserError

SETS: dict[str, str] = {
    "self-instruct": "trace/HHH/helpful/self-instruct/test.json",
    "lima": "trace/LLM-CL-Benchmark_*/Lima/test.json",
    "cona": "trace/HHH/harmless/CoNa/test.json",
}
"""TRACE's sets of prompts: 175, 300 and 178."""


def read_prompts(name: str, data_dir: Path | None) -> list[str]:
    """The prompts of a set.

    Args:
        name: One of `SETS`, or the path of a JSON or JSONL file whose rows have a `prompt`.
        data_dir: The folder that has TRACE's folders, or TRACE's folder itself.

    Raises:
        UserError: If there is no such file, or it holds something else.
    """
    path = _find(name, data_dir)
    text = path.read_text(encoding="utf-8-sig")
    try:
        rows = (
            [json.loads(line) for line in text.split("\n") if line.strip()]
            if path.suffix == ".jsonl"
            else json.loads(text)
        )
        prompts = [row["prompt"] for row in rows]
    except (ValueError, LookupError, TypeError) as error:
        raise UserError(f"{path}: it is not a list of rows that each have a `prompt`.") from error
    if not prompts or not all(isinstance(prompt, str) and prompt for prompt in prompts):
        raise UserError(f"{path}: it has no prompts, or one that is empty.")
    return prompts


def _find(name: str, data_dir: Path | None) -> Path:
    if name not in SETS:
        if not Path(name).is_file():
            raise UserError(f"prompts: {name!r} is neither a file nor one of {', '.join(sorted(SETS))}.")
        return Path(name)
    if data_dir is None:
        raise UserError(
            f"The prompts of {name} are read from a folder: set data_dir to one that has {SETS[name]}."
        )
    patterns = (SETS[name], SETS[name].removeprefix("trace/"))
    found = [path for pattern in patterns for path in sorted(data_dir.glob(pattern))]
    if not found:
        raise UserError(f"data_dir: {data_dir} has no {SETS[name]}, which the prompts of {name} are in.")
    return found[0]
