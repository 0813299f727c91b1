"""A stage in training, kept on disk beside where it will stand, and taken up again after an interruption."""

import hashlib
import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from forgetmenot import signals
from forgetmenot.engine import ranks, shards
from forgetmenot.engine.settings import TrainingSettings
from forgetmenot.engine.training_state import TrainingState
from forgetmenot.machine import in_words
from forgetmenot.methods import Method
from forgetmenot.record.files import written_whole
from forgetmenot.record.layout import TRAINING, log_in_training

METHOD = "method."
POSITION, DIGEST = "position", "sha256"
MOST = 50
"""By the clock, a save waits until so many times what the last one took have passed."""

Say = Callable[[str], None]


class Midway:
    """Keeps the state of one stage as its training goes on.

    One file beside the stage's folder has the weights that learn, the optimizer's moments and what the method
    changes, with the rest in its header; it is replaced whole. A sharded model's tensors lie in a folder
    beside it, as `torch.distributed.checkpoint` writes them, named by the step. The training log, which is
    written line by line, is cut to the step that is taken up.

    Args:
        folder: Where the stage will stand.
        method: What learns.
        settings: How often to save.
        say: Told what is taken up, or cannot be.
    """

    def __init__(self, folder: Path, method: Method, settings: TrainingSettings, say: Say) -> None:
        self.path = folder.with_name(f".{folder.name}.midway.safetensors")
        self.log = log_in_training(folder.parent.parent, folder.name)
        self.stage, self.method, self.settings, self.say = folder.name, method, settings, say
        self.seconds = 0.0
        """What earlier processes have trained."""
        self._began = self._saved = time.monotonic()
        self._took = 0.0
        self._stream: TextIO | None = None
        self._can = keeps_its_state(method)
        self.why_not = ""
        """Why no signal that ends the run makes it save; or empty."""
        if not self._can:
            self.why_not = (
                f"method {type(method).__name__} changes after every step and has no `training_state`"
            )
        elif settings.save_every is None:
            self.why_not = "training.save_every: null"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the log; what was kept stays."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    @property
    def every(self) -> float | None:
        """The seconds between two saves by the clock."""
        wanted = self.settings.save_every_seconds
        return None if wanted is None else max(wanted, MOST * self._took)

    def take_up(self, state: TrainingState) -> None:
        """Go on from what is there, if anything is; what is damaged or of another stage is said and left."""
        found = ranks.agreed(lambda: self._position(state))
        if found is None:
            if ranks.writes():
                _discard(self.log)
            return
        names = found["names"]
        if found["folder"]:
            tensors = self._read_shards(state, names, found["folder"])
        else:
            tensors = load_file(self.path)
        own = {k: v.to(state.learner.device) for k, v in tensors.items() if k.startswith(METHOD)}
        state.take_up({k: v for k, v in tensors.items() if k not in own}, found)
        held = {name.removeprefix(METHOD): value for name, value in own.items()}
        self.method.load_training_state({**found["method"], **held})
        state.learner.counts |= found["counts"][ranks.rank()]
        self.seconds = found["seconds"]
        self.say(f"{self.stage}: going on after step {state.step:,} of {state.steps:,}.")

    def stepping(self) -> AbstractContextManager[None]:
        """While steps are made, a signal that ends the run waits for `stepped`."""
        return signals.waiting()

    def record(self, row: Mapping[str, Any]) -> None:
        """Add a step to the log."""
        if not ranks.writes():
            return
        if self._stream is None:
            self._stream = self.log.open("a", encoding="utf-8", buffering=1)  # `fmn watch` reads it
        self._stream.write(json.dumps(row) + "\n")

    def stepped(self, state: TrainingState) -> None:
        """Save where it is time for it, or where a signal asks; end where a signal asks for that.

        Raises:
            Interrupted: After saving.
        """
        stop, due = self._asked(state)
        step = f"step {state.step:,} of {state.steps:,}"
        kept = f"at {step}, not saved ({self.why_not})"
        if due:
            kept = f"saved at {step}"
            try:
                self.save(state)
            except Exception as error:
                if ranks.world_size() > 1 or (lacked := in_words(error)) is None:
                    raise
                kept = f"at {step}, not saved"
                self._saved = time.monotonic()
                self.say(f"{self.stage}: {lacked}, so {step} was not saved; training goes on.")
        if stop:
            raise signals.Interrupted(stop, f"Stage {self.stage} is {kept}.")

    def save(self, state: TrainingState) -> None:
        """Write the state; what was there before stays until it is whole."""
        began = time.monotonic()
        own = self.method.training_state()
        tensors = {METHOD + name: value for name, value in own.items() if isinstance(value, Tensor)}
        position = {
            **state.plain(),
            "method": {name: value for name, value in own.items() if METHOD + name not in tensors},
            "counts": [dict(counts) for counts in _all(state.learner.counts)],
            "seconds": self.seconds + began - self._began,
            "folder": "",
        }
        learning = state.tensors()
        if shards.is_sharded(state.learner.model):
            position["folder"] = self._write_shards(learning, state.step)
            position["names"] = sorted(learning)
        else:
            tensors |= learning
            position["names"] = sorted(tensors)
        if ranks.writes():
            if self._stream is not None:
                self._stream.flush()
                os.fsync(self._stream.fileno())
            tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
            position |= {"log": _sha256(self._logged()), "shards": self._shards(position["folder"])}
            text = json.dumps(position)
            with written_whole(self.path) as aside:
                save_file(tensors, aside, {POSITION: text, DIGEST: _digest(tensors, text)})
            self._remove_shards(keep=position["folder"])
        ranks.wait()
        self._saved = time.monotonic()
        self._took = self._saved - began

    def finish(self, folder: Path) -> None:
        """Put the log into the stage's folder: training is over."""
        self.__exit__(None, None, None)
        if not ranks.writes():
            return
        if self.log.is_file():
            shutil.copyfile(self.log, folder / TRAINING)
        else:
            (folder / TRAINING).touch()  # a stage without a step

    def _asked(self, state: TrainingState) -> tuple[int, bool]:
        """The signal that asks for the end, or 0, and whether to save now: the same for every process."""
        stop, save, every = signals.asked_to_stop() or 0, signals.asked_to_save(), self.settings.save_every
        if isinstance(every, int):
            save |= state.step % every == 0 and state.step < state.steps
        elif self.every is not None:
            save |= ranks.writes() and time.monotonic() - self._saved >= self.every
        if ranks.world_size() > 1:  # a signal comes to each of them at another moment, or to one alone
            asked = torch.tensor([stop == signal.SIGTERM, stop == signal.SIGINT, save], dtype=torch.int32)
            terminated, interrupted, save = (bool(one) for one in ranks.all_reduce(asked).tolist())
            stop = signal.SIGTERM if terminated else signal.SIGINT if interrupted else 0
        return stop, self._can and (save or (stop > 0 and not self.why_not))

    def _position(self, state: TrainingState) -> dict[str, Any] | None:
        """The header of what is there, or None where there is nothing that this stage can go on from."""
        if not self.path.exists():
            return None
        try:
            with safe_open(self.path, "pt") as file:
                about = file.metadata() or {}
                held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
            whole = _digest(held, about[POSITION]) == about[DIGEST]
            found: dict[str, Any] = json.loads(about[POSITION])
            fits = found["steps"] == state.steps and len(found["counts"]) == ranks.world_size()
            whole = whole and self._shards(found["folder"]) == found["shards"]
            whole = whole and self._cut_log(found["step"], found["log"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            fits = whole = False
        if fits and whole:
            return found
        self.say(f"{self.stage}: {self.path.name} is damaged or of another run; the stage begins anew.")
        _discard(self.path)
        return None

    def _logged(self) -> bytes:
        return self.log.read_bytes() if self.log.is_file() else b""

    def _cut_log(self, step: int, digest: str) -> bool:
        """Keep the lines up to a step; returns whether they are those that were there when it was saved."""
        content = b"".join(self._logged().splitlines(keepends=True)[:step])
        if self.log.is_dir() or _sha256(content) != digest:
            return False
        with written_whole(self.log) as aside:
            aside.write_bytes(content)
        return True

    def _write_shards(self, tensors: dict[str, Tensor], step: int) -> str:
        from torch.distributed.checkpoint.state_dict_saver import save

        folder = self.path.with_name(f"{self.path.name}.{step}")
        save(tensors, checkpoint_id=folder)
        return folder.name

    def _read_shards(self, state: TrainingState, names: list[str], folder: str) -> dict[str, Tensor]:
        from torch.distributed.checkpoint.state_dict_loader import load

        tensors = state.empty([name for name in names if not name.startswith(METHOD)])
        load(tensors, checkpoint_id=self.path.with_name(folder))
        own: dict[str, Tensor] = load_file(self.path)
        return tensors | own

    def _shards(self, folder: str) -> dict[str, int]:
        """The files that shards lie in, and their sizes."""
        if not folder:
            return {}
        return {file.name: file.stat().st_size for file in sorted(self.path.with_name(folder).iterdir())}

    def _remove_shards(self, keep: str) -> None:
        for folder in self.path.parent.glob(f"{self.path.name}.*"):
            if folder.name != keep and folder.is_dir():
                shutil.rmtree(folder, ignore_errors=True)


def keeps_its_state(method: Method) -> bool:
    """Whether a method that changes after every step says how: of what it does not, nobody else knows."""
    kind = type(method)
    return kind.stepped is Method.stepped or kind.training_state is not Method.training_state


def _all(counts: Mapping[str, int]) -> list[Mapping[str, int]]:
    """The counts of every process, in order."""
    found = ranks.gathered({ranks.rank(): counts})
    return [found[rank] for rank in sorted(found)]


def _discard(path: Path) -> None:
    """Remove what stands in a file's place, were it a folder."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _digest(tensors: Mapping[str, Tensor], position: str) -> str:
    digest = hashlib.sha256(position.encode())
    for name in sorted(tensors):
        value = tensors[name]
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
