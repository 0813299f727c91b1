"""The protocol of a kind of adapter: everything that the rest of the program asks of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

from forgetmenot.models.settings import AdapterSettings, Uses


class AdapterKind:
    """A kind of adapter: which parameters learn, how they are kept, and what follows for a run.

    Attributes:
        folder: Its weights' folder under that of a stage; no other kind's.
        uses: What is known of it before torch is imported; in `settings.KINDS` for a kind of this package.
        shards: Whether it can learn while the weights are spread over processes (FSDP).
        not_one_model: Why no stage can be exported as one model, as a sentence; or empty.
    """

    folder: ClassVar[str]
    uses: ClassVar[Uses]
    shards: ClassVar[bool] = False
    not_one_model: ClassVar[str] = ""

    def default_rate(self, width: int) -> float:
        """The learning rate of `auto` for a model of that hidden size."""
        raise NotImplementedError

    def check(self, model: Any, settings: AdapterSettings) -> None:
        """Check the settings against the model, before anything is trained.

        Raises:
            UserError: If they do not fit it.
        """

    def identity(self, model: Any, settings: AdapterSettings) -> dict[str, str]:
        """What else the numbers depend on, by name; a resumed run must find the same."""
        return {}

    @contextmanager
    def examined(self, model: Any, settings: AdapterSettings) -> Iterator[None]:
        """Context in which the guard examines the plain model: with what a pass will go through later."""
        yield

    def adapt(self, model: Any, settings: AdapterSettings, stage: int, seed: int) -> Any:
        """Make the right parameters learn for a stage; returns the model to train.

        Args:
            model: The plain model, or what the stage before left.
            settings: What learns.
            stage: The stage's number, from 1.
            seed: For initial values.
        """
        raise NotImplementedError

    def is_in(self, model: Any) -> bool:
        """Whether a model holds what `adapt` would add, so that training goes on with it."""
        raise NotImplementedError

    def finish(self, model: Any, settings: AdapterSettings) -> Any:
        """After a stage's training: the model that the stage leaves."""
        return model

    def save(self, model: Any, stage: Path, weights: Mapping[str, Any] | None = None) -> None:
        """Write what was learned as safetensors into `folder`, under a stage's folder.

        Args:
            model: The model.
            stage: The stage's folder.
            weights: The full weights of a model that holds only its shard of them.
        """
        raise NotImplementedError

    def load(self, base: Any, stage: Path, *, trainable: bool) -> Any:
        """The model as `save` found it, in evaluation mode.

        Args:
            base: A fresh base model.
            stage: The stage's folder.
            trainable: Whether training continues from here.
        """
        raise NotImplementedError
