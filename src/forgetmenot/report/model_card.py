"""The card of an exported model: what it learned, what it forgot, from which data, and how to use it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from forgetmenot.errors import masked
from forgetmenot.record.results import RunResults
from forgetmenot.report.headline import headline
from forgetmenot.report.verdict_words import decision_words
from forgetmenot.report.wording import NONE, number
from forgetmenot.tasks.yaml_file import write_yaml


def model_card(
    base: str,
    stage: str,
    config: Mapping[str, Any],
    environment: Mapping[str, Any],
    results: RunResults | None,
    *,
    on_hub: bool,
    repository: str | None = None,
) -> str:
    """Markdown in the hub's form, beginning with its YAML; it names no folder of the machine that made it.

    Args:
        base: The base model's name.
        stage: The name of the stage.
        config: The run's config.
        environment: The content of the run's environment.json.
        results: The run's results; None where it has none yet.
        on_hub: Whether the base's name is a hub id, which the hub links.
        repository: The exported model's own id on the hub; None where it is in a folder.
    """
    shown, loaded = base if on_hub else last_part(base), repository or "PATH"
    about = {
        **({"base_model": base} if on_hub else {}),
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["continual-learning", "forgetmenot"],
    }
    identity = environment.get("identity", {})
    versions = ", ".join(f"{name} {version}" for name, version in environment.get("versions", {}).items())
    lines = [
        "---",
        write_yaml(about).rstrip(),
        "---",
        "",
        f"# {last_part(base)}, stage {stage}",
        "",
        f"`{shown}` (revision {identity.get('model_revision', NONE)}), fine-tuned by forgetmenot. Adapters "
        "are merged into the weights: it is loaded as any model is.",
        "",
        "```python",
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        "",
        f'tokenizer = AutoTokenizer.from_pretrained("{loaded}")',
        f'model = AutoModelForCausalLM.from_pretrained("{loaded}")',
        "```",
        "",
        *(
            _scores(results, stage)
            if results
            else ["The run has no results yet, so nothing is said of scores.", ""]
        ),
        "## Data",
        "",
        "| task | SHA-256 of its rows, first 16 digits |",
        "|---|---|",
        *(f"| {task} | `{digest}` |" for task, digest in identity.get("tasks", {}).items()),
        "",
        "The base model's terms and the data's apply to this model.",
        "",
        "## How it was made",
        "",
        f"{versions}; {environment.get('machine', '')}.",
        "",
        "```yaml",
        masked(write_yaml(without_folders(config))).rstrip(),
        "```",
    ]
    return "\n".join(lines) + "\n"


def last_part(path: str) -> str:
    """The last part of a path or hub id."""
    return path.rstrip("/").rpartition("/")[2]


def without_folders(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config as others may read it: paths by their last part; where data and the run lie is left out.

    >>> without_folders({"model": {"name": "/home/me/models/base"}, "output": "runs/a", "seed": 0})
    {'model': {'name': 'base'}, 'seed': 0}
    """
    return {key: _shared(value) for key, value in config.items() if key not in ("data_dir", "output")}


def _shared(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _shared(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_shared(one) for one in value]
    return last_part(value) if isinstance(value, str) and _is_path(value) else value


def _is_path(text: str) -> bool:
    """Whether a setting names a file or folder of this machine, and no hub id."""
    if text.startswith(("/", "~", ".", "$")):
        return True
    return "/" in text and " " not in text and Path(text).exists()


def _scores(results: RunResults, stage: str) -> list[str]:
    """The table of scores before and after, and what the run's verdicts say of its last stage."""
    row = [one.name for one in results.stages].index(stage)
    last = row == results.measured - 1
    learned = {task for one in results.stages[: row + 1] for task in one.trains_on}
    lines = [
        "## Scores",
        "",
        "| task | metric | trained | base | this model |" + (" against the base |" if last else ""),
        "|---|---|---|---|---|" + ("---|" if last else ""),
    ]
    for task in results.tasks:
        column = results.column(task)
        scores = [results.shown(task, column[k]) for k in (0, row)]
        trained = "yes" if task in learned else "no"
        cells = [task, results.metric_title(task), trained, *map(number, scores)]
        if last:
            cells.append(_verdict(results, task))
        lines.append(f"| {' | '.join(cells)} |")
    said = [f"- {sentence}" for sentence in headline(results)] if last else []
    return [*lines, "", *said, *([""] if said else [])]


def _verdict(results: RunResults, task: str) -> str:
    verdict = results.outcome(task).base_end
    return decision_words(verdict, results.metrics[task]) if verdict else NONE


def adapter_card(base: str, tasks: Sequence[str], *, alone: bool) -> str:
    """The card of a stage's adapter: what it stands on, and how it is loaded.

    Args:
        base: The base model's name.
        tasks: What was learned, in order.
        alone: Whether it answers by itself, and not together with adapters of other stages.
    """
    loaded = [
        "```python",
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM",
        "",
        f'base = AutoModelForCausalLM.from_pretrained("{base}")',
        'model = PeftModel.from_pretrained(base, "THIS_FOLDER")',
        "```",
    ]
    together = ["It answers together with the adapters of the stages before, which lie in this stage too."]
    lines = [
        f"# An adapter of {base}",
        "",
        f"The stage has learned {', '.join(tasks)}, in this order, by forgetmenot. Its scores are in "
        "results.json and report.html of the run's directory.",
        "",
        *(loaded if alone else together),
        "",
        "`fmn export RUN_DIR OUT` writes the merged model, with a card of its scores.",
    ]
    return "\n".join(lines) + "\n"
