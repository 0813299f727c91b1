"""Freeze layers: what they hold is shared by the tasks, or is what an earlier task wrote, and cannot be lost.

"Freeze" of Zheng et al. (ICLR 2025, "Spurious Forgetting in Continual Learning of Language Models", arXiv
2501.13453) freezes the input embeddings and the bottom layers, and stops early on each later task; how many
layers is chosen there by experiment, the share here is ours.

SEQ* (Zheng, Qiu & Ma, ACL 2024, "Learn or Recall? Revisiting Incremental Learning with Pre-trained Language
Models", arXiv 2312.07887) is another method: it freezes the whole pre-trained model after a warm-up on the
first task and goes on with its classifiers, which a causal language model that answers in words does not
have. Only `warm_up` is like it.

`layers: auto` is ours: it freezes the layers that the earlier tasks rewrote, as a map of them shows (see
`metrics.alignment.own_change`, and MOSSA, arXiv 2410.20008, for the states that are compared).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from forgetmenot.errors import UserError
from forgetmenot.methods.shared.method import Method, Stage
from forgetmenot.methods.shared.method import Options as BaseOptions
from forgetmenot.metrics.alignment import own_change
from forgetmenot.metrics.layer_rules import half_of_the_change
from forgetmenot.models.settings import AdapterSettings, used_by
from forgetmenot.settings import NonNegativeInt, Number
from forgetmenot.tasks import sample

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner
    from forgetmenot.models.layers import Layers

SHARE, WARM_UP = 0.5, 1
INPUTS = 100
"""So many of a task's `select` examples draw the map; below `LEAST` it says too little."""
LEAST = 4


class Options(BaseOptions):
    """What is frozen, and when."""

    share: Number = Field(default=SHARE, ge=0, le=1)
    """The share of the layers, from below, that is frozen, rounded to whole layers. Where it freezes any, the
    input embeddings are frozen as well, and with them an LM head that is tied to them. 0 freezes nothing. The
    default is ours."""
    warm_up: NonNegativeInt = WARM_UP
    """How many first stages learn with everything: 1 is SEQ*'s, and that of Freeze where the first task
    learns with everything; 0 freezes from the start."""
    layers: tuple[NonNegativeInt, ...] | Literal["auto"] | None = None
    """Instead of a share, from the start: the numbers of the layers, counted from 0 as in `adapter.layers`;
    or `auto`, before each later stage the fewest layers that hold half of what the earlier stages changed by
    themselves, on the `select` examples of their own tasks."""

    @model_validator(mode="after")
    def _one_way_to_choose(self) -> Options:
        if self.layers is not None and (self.share, self.warm_up) != (SHARE, WARM_UP):
            raise ValueError("layers takes the place of share and warm_up; name one or the other")
        return self


class Freeze(Method):
    """Freeze the lower layers after the first task (Freeze, of Spurious Forgetting), or those of a map."""

    Options = Options
    keeps: ClassVar[str] = "nothing; with layers: auto a number for each layer and task"
    needs: ClassVar[Mapping[str, tuple[str, ...]]] = {"kind": ("lora", "full")}

    def __init__(self, options: Any = None, seed: int = 0) -> None:
        super().__init__(options, seed)
        self.changes: list[list[float]] = []
        self._adapted: Layers | None = None
        """Which layers LoRA adapts; None where the model itself learns, or nothing is known."""
        self._before: dict[str, NDArray[np.float32]] = {}

    def check(self, adapter: AdapterSettings) -> None:
        """With every layer frozen, no LoRA adapter is left to learn."""
        super().check(adapter)
        self._adapted = None if used_by(adapter.kind).base_learns else adapter.layers
        share = self.options.layers is None and self.options.share == 1
        if share and self._adapted is not None:
            raise UserError(
                "method.share: 1 freezes everything that LoRA adapts; choose less, or adapter.kind: full."
            )

    def check_model(self, learner: Learner) -> None:
        """Layers that are named must be there, and some that LoRA adapts must be left to learn."""
        from forgetmenot.models.layers import decoder_layers, first_learning

        count, adapted = len(decoder_layers(learner.model)), self._adapted
        learning = set() if adapted is None else set(range(first_learning(learner.model, adapted), count))
        if self.options.layers == "auto":
            if len(learning) == 1:
                raise UserError(
                    "method.layers: auto freezes a layer that earlier tasks rewrote, and adapter.layers lets "
                    "one learn; let more layers learn."
                )
            return
        if beyond := [number for number in self.options.layers or () if number >= count]:
            raise UserError(
                f"method.layers: {beyond[0]}: this model has {count} layers, counted from 0; at most "
                f"{count - 1}."
            )
        if learning and learning <= set(self._chosen(count)):
            raise self._freezes_all(count)

    def adapt(self, learner: Learner, stage: Stage) -> None:
        """Freeze layers, adapters included; the input embeddings with the lowest of them."""
        from forgetmenot.models.layers import decoder_layers

        layers = decoder_layers(learner.model)
        frozen = self._frozen(len(layers), stage)
        if not frozen:
            return
        for module in [layers[k] for k in frozen]:
            module.requires_grad_(False)
        if 0 in frozen:
            learner.model.get_input_embeddings().requires_grad_(False)
        if self.options.layers == "auto":
            numbers = ", ".join(map(str, frozen))
            self.notes.append(f"frozen for the earlier tasks: layers {numbers} (from 0) of {len(layers)}")
        if not learner.trainable():
            raise self._freezes_all(len(layers))

    def begin(self, learner: Learner, stage: Stage) -> None:
        """For the map: the states before training, on inputs that it does not see."""
        self._before = self._states(learner, stage) if self.options.layers == "auto" else {}

    def end(self, learner: Learner, stage: Stage) -> None:
        """For the map: what each layer does otherwise by itself since the stage began, in all its tasks."""
        if self.options.layers != "auto":
            return
        after = self._states(learner, stage)
        for task, now in after.items():
            was = self._before[task]
            self.changes.append(
                [
                    own_change((now[k], was[k]), (now[k + 1], was[k + 1]), resamples=1).value
                    for k in range(len(now) - 2)
                ]
            )
        self._before = {}

    def state_dict(self) -> dict[str, Any]:
        """The map: a number for each layer and task; nothing where none is drawn."""
        return {"changes": self.changes} if self.options.layers == "auto" else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up the map."""
        self.changes = [list(row) for row in state.get("changes", [])]

    def _frozen(self, count: int, stage: Stage) -> Sequence[int]:
        if self.options.layers == "auto":
            return half_of_the_change(self.changes)
        warm = self.options.layers is None and stage.number <= self.options.warm_up
        return () if warm else self._chosen(count)

    def _chosen(self, count: int) -> Sequence[int]:
        """The layers that the options name, of so many."""
        if self.options.layers is None:
            return range(round(self.options.share * count))
        named: Sequence[int] = self.options.layers
        return named

    def _freezes_all(self, count: int) -> UserError:
        key = "share" if self.options.layers is None else "layers"
        return UserError(
            f"method.{key}: {getattr(self.options, key)} freezes all that is trained in the {count} layers "
            "of this model; choose less."
        )

    def _states(self, learner: Learner, stage: Stage) -> dict[str, NDArray[np.float32]]:
        """The states of held-out inputs of the stage's tasks, by task: [layers + 2, inputs, width]."""
        found = {}
        for task in stage.tasks:
            wording = stage.wordings[task]
            examples = sample(task, wording.task.select, INPUTS)
            prompts = [one.prompt for one in wording.encode(examples) if one.prompt]
            if len(prompts) < LEAST:
                raise UserError(
                    f"method.layers: auto: {task} has {len(prompts)} examples with a prompt in its select "
                    f"split, and the map needs {LEAST} or more; name layers, or take share."
                )
            found[task] = learner.layer_states(prompts).transpose(0, 1).contiguous().numpy()
        return found
