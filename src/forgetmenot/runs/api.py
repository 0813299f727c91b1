"""The Python interface: run a config, and read its results."""

import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from forgetmenot import signals
from forgetmenot.config import (
    RunConfig,
    by_key,
    differences,
    load_config,
    read_resolved,
    same_value,
    settings_hash,
)
from forgetmenot.engine import ranks
from forgetmenot.errors import UserError
from forgetmenot.machine import way_out
from forgetmenot.record.damage import damaged, stages_in
from forgetmenot.record.layout import CONFIG, ENVIRONMENT, PREDICTIONS, REPORT, RESULTS, STAGES, stage_folder
from forgetmenot.record.result_schema import Results
from forgetmenot.record.results import RunResults, read_results_file
from forgetmenot.record.seal import read_checked
from forgetmenot.report.headline import headline
from forgetmenot.report.html import write_report
from forgetmenot.report.screen import Screen
from forgetmenot.report.terminal import print_matrix
from forgetmenot.runs.directory import RunDirectory
from forgetmenot.runs.display import Display
from forgetmenot.runs.opening import opened
from forgetmenot.runs.plan import check_names, check_trackers, in_words, make_plan
from forgetmenot.runs.probing import make_probes
from forgetmenot.runs.receipt_loader import ReceiptLoader
from forgetmenot.runs.standing import kept

if TYPE_CHECKING:
    import pandas as pd

    from forgetmenot.report.live import LivePage


class Run:
    """A run on disk.

    Attributes:
        path: Its directory.
        results: The content of results.json.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        results = read_results_file(self.path)
        if results is None:
            raise UserError(f"{self.path} holds no finished run: there is no results.json.")
        self.results: Results = results

    @property
    def matrix(self) -> "pd.DataFrame":
        """The score matrix R: stages × tasks."""
        import pandas as pd

        stages = [stage["name"] for stage in self.results["stages"]]
        return pd.DataFrame(self.results["matrix"], index=stages, columns=self.results["tasks"], dtype=float)

    def summary(self) -> dict[str, Any]:
        """Average performance, backward transfer, forgetting, …: null where undefined, with the reason."""
        return dict(self.results["summary"])

    def predictions(self, stage: int) -> "pd.DataFrame":
        """One row for each (task, example) after a stage: gold, predicted, log-likelihoods."""
        import pandas as pd

        name = self.results["stages"][stage]["name"]
        path = stage_folder(self.path, name) / PREDICTIONS
        content = read_checked(path)
        if content is None:
            raise damaged(path, "it is missing")
        return pd.read_parquet(io.BytesIO(content))

    def model(self, stage: int | str = "last") -> tuple[Any, Any]:
        """The model and the tokenizer after a stage, its adapters merged, as Transformers knows them.

        Args:
            stage: Its number, its name, or `last`.

        Raises:
            UserError: As `export` does.
        """
        from tempfile import TemporaryDirectory

        from transformers import AutoModelForCausalLM, AutoTokenizer

        with TemporaryDirectory() as folder:
            place = Path(folder) / "model"
            self.export(place, stage)
            return AutoModelForCausalLM.from_pretrained(place), AutoTokenizer.from_pretrained(place)

    def export(
        self,
        out: str | Path,
        stage: int | str = "last",
        *,
        gguf: str | None = None,
        push_to_hub: str | None = None,
        private: bool = False,
    ) -> str:
        """Write a stage as a model with its tokenizer; says how far it answers otherwise than the run did.

        Args:
            out: A new directory.
            stage: Its number, its name, or `last`.
            gguf: Write a GGUF file too, with weights of this type.
            push_to_hub: Put the directory into this new repository of the Hugging Face hub, as owner/name.
            private: Make that repository for its owner alone.
        """
        from forgetmenot.runs.export import export

        return export(self.path, stage, out, gguf, push_to_hub=push_to_hub, private=private)

    def score(
        self,
        tasks: Sequence[str] = (),
        prompt: str | None = None,
        *,
        reading: Mapping[str, Any] | None = None,
        data_dir: str | Path | None = None,
        console: Console | None = None,
    ) -> "pd.DataFrame":
        """Score the saved stages by another prompt, on other tasks, or otherwise: stages × tasks.

        Args:
            tasks: Names, suites or task files; the run's own if empty.
            prompt: A variant for all of them; the run's own if None.
            reading: What else differs, as in `evaluation.readings`: {"demonstrations": 4}.
            data_dir: The folder of public data sets; the run's own if None.
            console: Where to show progress; None shows it in a notebook alone.

        Raises:
            UserError: If a task or variant does not exist, or weights are gone.
        """
        import pandas as pd

        from forgetmenot.runs.rescore import rescore

        _, found = rescore(self.path, tasks, prompt, settings=reading, data_dir=data_dir, console=console)
        return pd.DataFrame(found["matrix"], index=found["stages"], columns=found["tasks"], dtype=float)

    def report(self) -> Path:
        """Write report.html again; returns its path.

        Raises:
            UserError: If it cannot be written there.
        """
        try:
            return write_report(self.path)
        except OSError as error:
            raise UserError(f"{self.path / REPORT} cannot be written ({error.strerror}).") from error

    def watch(self, port: int | None = None) -> "LivePage":
        """Serve the report on this machine, until the page is closed or this process ends.

        Raises:
            UserError: If the port cannot be had.
        """
        from forgetmenot.runs.live import watch_run

        return watch_run(self.path, port)

    def print(self, console: Console | None = None) -> None:
        """Print the matrix and the summary."""
        print_matrix(self.results, console or Screen())

    def __repr__(self) -> str:
        """The path, and what was lost."""
        return f"Run({str(self.path)!r}): {headline(RunResults(self.results))[0]}"

    def _repr_html_(self) -> str:
        """The headline, the score matrix and a link to the page, for a notebook."""
        said = "".join(f"<p>{escape(one)}</p>" for one in headline(RunResults(self.results))[:3])
        link = f'<p><a href="{escape((self.path / REPORT).as_posix())}">{REPORT}</a></p>'
        return said + self.matrix.to_html(float_format="{:.3f}".format, na_rep="–", border=0) + link


def run(
    config: RunConfig | Mapping[str, Any] | str | Path | None = None,
    *,
    fresh: bool = False,
    console: Console | None = None,
    **settings: Any,
) -> Run:
    """Train on one task after another, score all of them after each, and report what was forgotten.

    A run that was interrupted goes on from where it was saved; a finished one is only read; one whose list of
    tasks has grown continues with the new ones. SIGINT and SIGTERM save the stage and end the run by a
    `KeyboardInterrupt`; SIGUSR1 saves it. In processes that a launcher started (`accelerate
    launch`, `torchrun`) all of them call this, and share the work.

    Args:
        config: A config, a path to one, or dotted keys to values; None for the bundled model and suite.
        fresh: Delete what an earlier run wrote into the run directory, and start over.
        console: Where to show progress; None shows nothing, but in a notebook.
        settings: Keys of the config to values, over those of `config`: model="…", tasks=["…"],
            training={"epochs": 2}, which leaves the other keys of `training` as `config` has them.

    Raises:
        UserError: If anything that the config names is not there or does not fit.
    """
    config = resolve(config, settings)
    directory = RunDirectory(config.directory)
    with signals.listening(), opened(directory, console) as display:
        if not ranks.agreed(lambda: not fresh and is_finished(directory, config)):
            try:
                _go_on(config, directory, display, fresh)
            except signals.Interrupted as interrupted:
                raise _cut_off(interrupted, directory) from interrupted
            except Exception as error:
                if isinstance(error, UserError) or (sentence := way_out(error)) is None:
                    raise
                kept = f"What is finished is kept in {directory.path}; run the same command again to go on."
                raise UserError(f"{sentence}. {kept}") from error
    return Run(directory.path)


def resume(run_dir: str | Path, *, console: Console | None = None) -> Run:
    """Go on with a run from where it was saved, by the config in its directory; a finished one is read.

    Raises:
        UserError: If the directory holds no run.
    """
    path = Path(run_dir)
    config = read_resolved(path / CONFIG)
    here = str(path.absolute()).replace("{", "{{").replace("}", "}}")
    return run(config.model_copy(update={"output": here}), console=console)


def _cut_off(interrupted: signals.Interrupted, directory: RunDirectory) -> signals.Interrupted:
    """An interruption that says what is kept of the run, and in which directory it goes on.

    Not where nothing was begun, or where its processes have to be started by the command that began them.
    """
    if not directory.begun or ranks.world_size() > 1:
        return interrupted
    try:
        said = kept(directory.path)
    except UserError:  # which whatever goes on says
        said = ""
    where = " ".join(filter(None, (said, interrupted.where)))
    return signals.Interrupted(interrupted.number, where, str(directory.path))


def resolve(
    config: RunConfig | Mapping[str, Any] | str | Path | None, settings: Mapping[str, Any] | None = None
) -> RunConfig:
    """A config out of whatever `run` takes, with other settings over it.

    Raises:
        UserError: If they do not fit.
    """
    if isinstance(config, RunConfig):
        return load_config(None, {**config.model_dump(), **by_key(settings)}) if settings else config
    if isinstance(config, Mapping):
        return load_config(None, {**config, **by_key(settings or {})})
    return load_config(Path(config) if config is not None else None, by_key(settings or {}))


def is_finished(directory: RunDirectory, config: RunConfig) -> bool:
    """Whether the directory holds this run, finished.

    Raises:
        UserError: If it holds another run, which this one does not continue.
    """
    if not is_begun(directory, config):
        return False
    if not (directory.path / CONFIG).is_file() or differences(read_resolved(directory.path / CONFIG), config):
        return False
    if not all((directory.path / name).is_file() for name in (RESULTS, REPORT)):
        return False
    results = read_results_file(directory.path)
    return results is not None and all(directory.is_committed(one["name"]) for one in results["stages"])


def is_begun(directory: RunDirectory, config: RunConfig) -> bool:
    """Whether the directory holds this run, or the beginning of it.

    Raises:
        UserError: If it holds another run, which this one does not continue.
    """
    path = directory.path / CONFIG
    if not path.is_file():
        return _begun_without_config(directory, config)
    before = read_resolved(path)
    different = differences(before, config)
    if different and not (
        different == ["tasks"] and same_value(config.tasks[: len(before.tasks)], before.tasks)
    ):
        raise UserError(
            f"{directory.path} holds a run of another config: {', '.join(different)} differ. "
            "Choose another output, or start over with --fresh."
        )
    return True


def _begun_without_config(directory: RunDirectory, config: RunConfig) -> bool:
    """Whether the directory holds stages of this run, whose config.yaml is gone; it is then written again.

    Raises:
        UserError: If they are of another, or nothing tells of which.
    """
    path = directory.path / CONFIG
    if path.is_dir():
        raise damaged(path, "a folder stands in its place")
    if not stages_in(directory.path / STAGES):
        return False
    settings = (directory.read_json(ENVIRONMENT) or {}).get("settings")
    if settings == settings_hash(config):
        return True
    raise UserError(
        f"{path} is missing, and {directory.path / STAGES} holds stages of "
        f"{'another config' if settings else 'a config that nothing tells of'}: put it back from a copy, "
        "give the command that began the run, choose another output, or start over with --fresh."
    )


def _go_on(config: RunConfig, directory: RunDirectory, display: Display, fresh: bool) -> None:
    """See that all of it fits together, say what is going to be done, and only then import what computes."""
    check_trackers(config)
    check_names(config)
    for line in in_words(config):
        display.say(line)
    receipts = ReceiptLoader(config, directory)
    plan = make_plan(config, receipts)
    for note in plan.notes:
        display.say(note)
    probes = make_probes(plan, config.evaluation.probes)
    for note in (note for probe in probes.values() for note in probe.notes):
        display.say(note)
    from forgetmenot.runs.execution import carry_out

    carry_out(plan, receipts, probes, directory, display, fresh=fresh)
