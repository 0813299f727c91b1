"""The callback as a plugin of Axolotl, which imports this module by its `plugins:` line.

    plugins:
      - forgetmenot.gate.axolotl.ForgettingPlugin
    forgetting:
      tasks: [sst2, mrpc]
      every: 100

Written for the interface of Axolotl 0.18 (`axolotl.integrations.base.BasePlugin`).
"""

import inspect
from collections.abc import Mapping
from typing import Any

from axolotl.integrations.base import BasePlugin
from pydantic import BaseModel

from forgetmenot.errors import UserError, nearest
from forgetmenot.gate.callback import ForgettingCallback

SECTION = "forgetting"
GIVEN = {"self", "trainer", "tokenizer"}
"""What the callback takes that a YAML file does not say."""


class ForgettingArgs(BaseModel):
    """What the plugin adds to Axolotl's config.

    Attributes:
        forgetting: The arguments of `ForgettingCallback`, by name.
    """

    forgetting: dict[str, Any] | None = None


class ForgettingPlugin(BasePlugin):  # type: ignore[misc]
    """Adds a `ForgettingCallback` to the trainer that Axolotl makes, of whatever kind."""

    def get_input_args(self) -> str:
        """Name the keys of the config, as Axolotl wants it."""
        return f"{__name__}.{ForgettingArgs.__name__}"

    def register(self, cfg: Mapping[str, Any]) -> None:
        """Check the keys before Axolotl loads anything.

        Raises:
            UserError: If there are none, or one is unknown or lacking.
        """
        _settings(cfg)

    def add_callbacks_post_trainer(self, cfg: Mapping[str, Any], trainer: Any) -> list[ForgettingCallback]:
        """Make the callback, which Axolotl then adds to the trainer.

        Raises:
            UserError: As `ForgettingCallback`.
        """
        callback = ForgettingCallback(**_settings(cfg))
        callback.attach(trainer)
        return [callback]


def _settings(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The section of the config, whose keys are the callback's arguments."""
    section = cfg.get(SECTION)
    if not isinstance(section, Mapping):
        raise UserError(
            f"{SECTION}: the plugin ForgettingPlugin needs this section, with `tasks` and `every`."
        )
    arguments = inspect.signature(ForgettingCallback.__init__).parameters
    known = [name for name in arguments if name not in GIVEN]
    for key in section:
        if key not in known:
            raise UserError(f"{SECTION}.{key}: there is no such key. {nearest(key, known)}")
    for key in known:
        if arguments[key].default is inspect.Parameter.empty and section.get(key) is None:
            raise UserError(f"{SECTION}.{key}: it must be given.")
    return {key: value for key, value in section.items() if value is not None or key in ("limit",)}
