"""The loader of tasks with their receipts, so that prompts and demonstrations show them."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from forgetmenot.config import RunConfig
from forgetmenot.engine import ranks
from forgetmenot.errors import UserError, nearest
from forgetmenot.evaluation.watched import divided
from forgetmenot.receipts.classifier import Classifier
from forgetmenot.receipts.fit import Receipts, classifier_maker, issue_receipts, receipted, takes_receipts
from forgetmenot.record.layout import RECEIPTS
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.tasks import Task, fingerprint, load_tasks

Make = Callable[[], Classifier]

FORMAT = 1
"""Raised whenever the small models answer otherwise, or their files are laid out otherwise."""


class ReceiptLoader:
    """Loads tasks as `load_tasks` does, and puts receipts on those that `receipts.tasks` names.

    Receipts are in the run's directory under a hash of all that they depend on, so that a run that
    goes on reads what it began with. A receipt is a further field, and so a part of the run's identity.

    Attributes:
        plain: The tasks that got receipts, as they were before, by name.
        receipts: Their receipts, by task.
    """

    def __init__(self, config: RunConfig, directory: RunDirectory) -> None:
        self._settings, self._directory = config.receipts, directory
        self._own = [*config.tasks, *divided(config.evaluation.also_score)[0]]
        self.plain: dict[str, Task] = {}
        self.receipts: dict[str, Receipts] = {}

    def __call__(self, names: Sequence[str], data_dir: Path | None) -> list[Task]:
        """Load tasks in order; without `receipts.model` that is all.

        Raises:
            UserError: As `load_tasks`, a setting names a task that the run does not have, or a small model
                cannot be fitted.
        """
        if self._settings.model is None:
            return load_tasks(names, data_dir)
        make = classifier_maker(self._settings)  # what is not installed is said first
        tasks = {task.name: task for task in load_tasks(names, data_dir)}
        if list(names) == self._own:
            self._check_names(tasks)
        chosen = self._chosen(tasks)
        sources = {name: self._settings.sources.get(name, name) for name in chosen}
        others = [name for name in dict.fromkeys(sources.values()) if name not in tasks]
        known = tasks | {name: task for name in others for task in load_tasks([name], data_dir)}
        return [
            self._with_receipts(task, known[sources[name]], make) if name in chosen else task
            for name, task in tasks.items()
        ]

    def described(self) -> dict[str, Any]:
        """What results.json says of the receipts, by task."""
        return {name: receipts.described(self.plain[name]) for name, receipts in self.receipts.items()}

    def _chosen(self, tasks: Mapping[str, Task]) -> list[str]:
        """The tasks that get receipts."""
        if self._settings.tasks == "all":
            return [name for name, task in tasks.items() if takes_receipts(task)]
        return [name for name in tasks if name in self._settings.tasks]

    def _check_names(self, tasks: Mapping[str, Task]) -> None:
        named = () if self._settings.tasks == "all" else self._settings.tasks
        for key, names, known in (
            ("tasks", named, list(tasks)),
            ("sources", self._settings.sources, self._chosen(tasks)),
        ):
            for name in names:
                if name not in known:
                    which = "this run has no task" if key == "tasks" else "there are no receipts for task"
                    raise UserError(f"receipts.{key}: {which} {name!r}. {nearest(name, known)}")

    def _with_receipts(self, task: Task, source: Task, make: Make) -> Task:
        receipts = ranks.agreed(lambda: self._kept(task, source, make))
        self.plain[task.name], self.receipts[task.name] = task, receipts
        right = receipts.described(task)["accuracy"]
        shares = ", ".join(f"{value:.1%} of {split}" for split, value in right.items())
        note = f"its receipts, by {receipts.model} fitted on {receipts.source}, are right on {shares}."
        if not receipts.calibrated_on:
            note += f" Their confidence is not calibrated: {receipts.source} has no select split."
        with_them = receipted(task, receipts, confidence=self._settings.confidence)
        return replace(with_them, notes=(*with_them.notes, note))

    def _kept(self, task: Task, source: Task, make: Make) -> Receipts:
        """The receipts in the directory, or new ones, which are written there."""
        name = f"{RECEIPTS}/{task.name}-{self._key(task, source)}.json"
        if (content := self._directory.read_json(name)) is not None:
            return Receipts.from_json(content)
        receipts = issue_receipts(task, source, self._settings, make)
        self._directory.write_json(name, receipts.to_json())
        return receipts

    def _key(self, task: Task, source: Task) -> str:
        """A hash of all that receipts depend on, except the installed packages."""
        settings = self._settings.model_dump(mode="json", exclude={"tasks", "sources", "confidence"})
        folder = Path(str(self._settings.model))
        weights = None
        if folder.is_dir():
            from forgetmenot.models.revision import weights_fingerprint

            weights = weights_fingerprint(folder)
        about = [FORMAT, settings, weights, fingerprint(task), fingerprint(source)]
        return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
