"""The live page of a run or of a study: what `fmn watch` serves."""

from dataclasses import dataclass
from pathlib import Path

from forgetmenot.errors import UserError
from forgetmenot.record.layout import CONFIG, ENVIRONMENT, REPORT, RESULTS, STAGES, STUDY
from forgetmenot.report.html import Now
from forgetmenot.report.live import EVERY, LivePage, plain_page
from forgetmenot.report.wording import setting
from forgetmenot.runs.live import RunPages, watch_run
from forgetmenot.runs.ownership import LOCK
from forgetmenot.runs.standing import in_use, is_over, plan_of, stands_at
from forgetmenot.studies.config import StudyConfig, StudyRun, expand_study, load_study
from forgetmenot.tasks.yaml_file import read_yaml

RUNS = "runs"


def watch(path: str | Path, *, port: int | None = None) -> LivePage:
    """Serve the page of a run or a study on this machine, with what is there so far.

    The page is made anew when a browser asks, which it does by itself every few seconds until all is done. It
    is served by a thread of this process, until it is closed; nothing in the directory is changed.

    Args:
        path: The directory of a run or a study; it may be empty yet.
        port: The port; None for one that is free.

    Returns:
        The page; its `address` is where a browser on this machine finds it.

    Raises:
        UserError: There is no such directory, it holds something else, or the port cannot be had.
    """
    path = Path(path)
    if not path.is_dir():
        raise UserError(
            f"watch: {path} is no directory of a run or a study. (A run watches tasks by "
            f"`fmn run --watch {path}`.)"
        )
    known = (STUDY, LOCK, CONFIG, ENVIRONMENT, RESULTS, STAGES)
    if any(path.iterdir()) and not any((path / name).exists() for name in known):
        raise UserError(f"watch: {path} holds neither a run nor a study; give the directory of one.")
    if not (path / STUDY).is_file():
        return watch_run(path, port)
    return LivePage(StudyPages(path).page, port)


@dataclass(frozen=True)
class Listed:
    """A run of a study in its list.

    Attributes:
        link: Its page.
        varies: What is its own, as people write it.
        stands: Where it stands.
    """

    link: str
    varies: dict[str, str]
    stands: str


class StudyPages:
    """Makes the pages of a study: the list of its runs at /, each run at /runs/NAME/, and its report."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._runs: dict[str, RunPages] = {}

    def page(self, path: str, held: bool) -> str | None:
        """The page of a path."""
        names = [part for part in path.split("/") if part]
        if not names:
            try:
                return self._list(held)
            except (UserError, OSError) as error:
                return plain_page(self.path.name, Now([f"It cannot be read now: {error}"], EVERY))
        if names == [REPORT] and (self.path / REPORT).is_file():
            return (self.path / REPORT).read_text(encoding="utf-8")
        known = [run.config.directory.name for run in self._grid()[1]]
        if len(names) == 2 and names[0] == RUNS and names[1] in known:
            pages = self._runs.setdefault(names[1], RunPages(self.path / RUNS / names[1]))
            return pages.page(held=held)
        return None

    def _list(self, held: bool) -> str:
        config, grid = self._grid()
        folders = {run.config.directory.name: run.varies for run in grid}
        runs = [
            Listed(
                f"/{RUNS}/{name}/",
                {key: setting(value) for key, value in varies.items()},
                _stands(self.path / RUNS / name),
            )
            for name, varies in folders.items()
        ]
        done = sum(is_over(self.path / RUNS / name) for name in folders)
        over = done == len(folders) and (self.path / REPORT).is_file()
        sentence = f"{done} of {len(folders)} runs are done."
        now = Now([sentence], None if held or over else EVERY, held)
        keys = list(dict.fromkeys(key for one in runs for key in one.varies))
        report = f"/{REPORT}" if over else None
        return plain_page(f"The study {config.name}", now, runs=runs, keys=keys, report=report)

    def _grid(self) -> tuple[StudyConfig, list[StudyRun]]:
        """The study as it was begun; its paths are not relative to its directory."""
        config = load_study(read_yaml(self.path / STUDY))
        return config, expand_study(config)


def _stands(run_dir: Path) -> str:
    """Where a run stands, in a few words."""
    at_work = in_use(run_dir)  # asked first and last: it may begin or end while its files are read
    if is_over(run_dir):
        return "done"
    if not run_dir.is_dir():
        return "not begun"
    try:
        said = stands_at(run_dir, plan_of(run_dir)[1])
    except (UserError, OSError) as error:
        return str(error)
    return said if at_work or in_use(run_dir) else f"not at work. {said}"
