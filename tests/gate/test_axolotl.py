"""The plugin against a stand-in for Axolotl's base class, with the methods that version 0.18 calls."""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from forgetmenot.errors import UserError
from tests.gate.training import model_of, settings, trainer_of


class _BasePlugin:
    """Those of Axolotl's hooks that the plugin has to do with, as they are there."""

    def register(self, cfg: dict[str, Any]) -> None:
        pass

    def get_input_args(self) -> str | None:
        pass

    def add_callbacks_post_trainer(self, cfg: Any, trainer: Any) -> list[Any]:
        return []


class _Config(dict[str, Any]):
    """Axolotl's config gives None for a key that is not there."""

    def __getattr__(self, key: str) -> Any:
        return self.get(key)


@pytest.fixture
def plugin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    names = ["axolotl", "axolotl.integrations", "axolotl.integrations.base"]
    for name in names:
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setattr(sys.modules[names[-1]], "BasePlugin", _BasePlugin, raising=False)
    module_name, class_name = ["forgetmenot.gate.axolotl", "ForgettingPlugin"]
    yield getattr(importlib.import_module(module_name), class_name)()
    sys.modules.pop(module_name)


def test_it_adds_the_callback_to_the_trainer(
    plugin: Any, tiny_tasks: dict[str, Path], tiny_llama: Path, tmp_path: Path
) -> None:
    section = {"tasks": [str(tiny_tasks["animal"])], "every": 3, "limit": 10}
    config = _Config(plugins=["forgetmenot.gate.axolotl.ForgettingPlugin"], forgetting=_Config(section))
    plugin.register(config)
    trainer = trainer_of(model_of(tiny_llama), settings(tmp_path), tiny_llama)
    for callback in plugin.add_callbacks_post_trainer(config, trainer):
        trainer.add_callback(callback)
    trainer.train()
    steps = [row["step"] for row in trainer.state.log_history if "forgetting/animal/accuracy" in row]
    assert steps == [0, 3, 6]
    assert (tmp_path / "forgetting" / "report.html").is_file()


def test_its_keys_are_a_class_that_axolotl_imports_by_name(plugin: Any) -> None:
    module, name = plugin.get_input_args().rsplit(".", 1)
    keys = getattr(importlib.import_module(module), name)
    assert keys(forgetting={"tasks": "sst2", "every": 5}).forgetting["every"] == 5
    assert keys().forgetting is None


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({}, "forgetting: the plugin ForgettingPlugin needs this section"),
        ({"forgetting": {"tasks": "sst2", "evry": 5}}, "forgetting.evry: there is no such key. Did you mean"),
        ({"forgetting": {"tasks": "sst2"}}, "forgetting.every: it must be given"),
        ({"forgetting": {"tasks": "sst2", "every": 5, "trainer": 1}}, "forgetting.trainer: there is no such"),
    ],
)
def test_a_wrong_section_is_said_at_once(plugin: Any, config: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UserError) as refused:
        plugin.register(_Config(config))
    assert sentence in str(refused.value)
