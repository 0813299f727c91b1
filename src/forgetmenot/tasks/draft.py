"""A task file written from a guess, with comments that say what to look at."""

from collections.abc import Mapping
from itertools import permutations

from forgetmenot.tasks.conversion import identifier
from forgetmenot.tasks.custom import ONE_FILE
from forgetmenot.tasks.guess import Guess
from forgetmenot.tasks.yaml_file import write_yaml

MOST_COUNTED = 6


def draft(name: str, data: Mapping[str, str], rows: int, guess: Guess) -> str:
    """The content of a task file.

    Args:
        name: The task's name.
        data: `train`, and `score` where there is a file for it: paths relative to the task file.
        rows: How many rows were looked at.
        guess: What they are taken for.
    """
    splits = {**data, "score": data.get("score", ONE_FILE)}
    held = "" if "score" in data else f"; {ONE_FILE} of them are scored, and never trained on"
    held += "; a tenth of the rest is for choices, as of a prompt (select: 0 for none)"
    lines = [
        "# Written by `fmn init`. Read it, correct it, and run: fmn run --model MODEL --tasks THIS_FILE",
        "# docs/tasks.md explains every key.",
        f"name: {_scalar(name)}",
        f"data: {{{', '.join(f'{key}: {_scalar(place)}' for key, place in splits.items())}}}  "
        f"# {rows:,} rows{held}",
        f"{guess.key}: {_scalar(guess.column)}  # the answer: {guess.why}",
    ]
    if guess.rejected:
        lines.append(f"rejected: {_scalar(guess.rejected)}")
    if guess.key == "text" and guess.left_out:
        lines.append(f"# not read: {', '.join(guess.left_out)}")
    if guess.cluster:
        lines.append(f"cluster: {_scalar(guess.cluster)}  # parts of one are held out and drawn together")
    if guess.key == "label":
        lines += ["metric: accuracy  # or f1, matthews"]
    if guess.key == "target":
        metric, other = ("exact_match", "rouge_l") if guess.short else ("rouge_l", "exact_match")
        lines += [f"metric: {metric}  # or {other}"]
        if not guess.short:
            lines += ["generation: {max_new_tokens: 128}"]
    if guess.key == "messages":
        lines += ["metric: loss  # or exact_match, rouge_l of the assistant's last turn"]
    if guess.key in ("label", "target", "chosen"):
        lines += _prompt(guess)
    return "\n".join(lines) + "\n"


def _prompt(guess: Guess) -> list[str]:
    lines = [
        "prompts:",
        "  default:",
        "    # chat: true  # for a chat model: a user's turn in its own template",
    ]
    if guess.left_out:
        lines.append(f"    # not shown to the model: {', '.join(guess.left_out)}")
    if any(identifier(name) != name for name in guess.inputs):
        lines.append("    # in a template a column's name has _ for all but letters and digits")
    lines += ["    template: |-", *(f"      {line}".rstrip() for line in _template(guess).split("\n"))]
    if guess.labels:
        most = list(guess.labels.items())
        counts = ", ".join(f"{label} {count:,}" for label, count in most[:MOST_COUNTED])
        more = f", … ({len(most)} labels)" if len(most) > MOST_COUNTED else ""
        lines += [f"    choices:  # each label, and the words that stand for it; rows: {counts}{more}"]
        lines += [f"      {_scalar(label)}: {_scalar(label)}" for label in guess.labels]
        if any(longer.startswith(shorter) for shorter, longer in permutations(guess.labels, 2)):
            lines += [r'    end: "\n"  # one label begins another: a line end tells them apart']
    return lines


def _template(guess: Guess) -> str:
    """Jinja: the inputs, each with its name where there are several, and a cue for the answer."""
    if guess.inputs[:2] == ("instruction", "input"):  # as in Alpaca's files
        return "{{ instruction }}{% if input is defined and input %}\n\n{{ input }}{% endif %}\n\nResponse:"
    if guess.inputs == ("prompt",) and guess.key != "label":
        return "{{ prompt }}"
    lines = []
    for name in guess.inputs:
        value = f"{identifier(name)} | default('')" if name in guess.gaps else identifier(name)
        before = f"{_title(name)}: " if len(guess.inputs) > 1 else ""
        lines.append(f"{before}{{{{ {value} }}}}")
    cue = _title(guess.column) if guess.key != "chosen" else "Answer"
    return "\n".join([*lines, f"{cue}:"])


def _title(column: str) -> str:
    words = column.replace("_", " ").strip()
    return words[:1].upper() + words[1:]


def _scalar(text: str) -> str:
    """A text as YAML on one line, in quotes where it needs them."""
    return write_yaml([text])[2:].strip() if "\n" not in text else repr(text)
