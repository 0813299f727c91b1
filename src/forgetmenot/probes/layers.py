"""The `layers` probe: where in the model each task lives, and where it is overwritten, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from forgetmenot.errors import UserError
from forgetmenot.metrics.alignment import Alignment, alignment, biased_cka, own_change
from forgetmenot.metrics.resampling import percentiles
from forgetmenot.probes.shared.controls import Control, controls_of
from forgetmenot.probes.shared.kept_states import Floats, KeptStates
from forgetmenot.probes.shared.probe import NOT_FINITE, Part, Probe, ProbeOptions, RunTask, chosen_tasks
from forgetmenot.probes.shared.prompt_sets import read_prompts
from forgetmenot.prompting import encode_cached
from forgetmenot.prompting.tokens import tokens_of
from forgetmenot.settings import Names
from forgetmenot.tasks import sample

if TYPE_CHECKING:
    from forgetmenot.engine.learner import Learner

LEAST = 4
"""Inputs, which the debiased estimate takes."""
LIMIT = 100
LEVEL = 0.95
METRIC = "debiased linear CKA with the base model"
CONTROLS = "evaluation.probes.layers.controls"
SAME = 0.1
"""How far states of one model may lie apart, as a share: those in bf16 have roundings of 2^-8 each."""
ALIKE = "all inputs have the same state there, or all states are equally far apart"

NO_BASE = "the base model's states on these inputs are not kept: the task was added to the run later"

Prompts = Sequence[tuple[int, ...]]
Model = tuple[KeptStates, str]
"""Where a model's states are kept, and by which stage."""


class LayersOptions(ProbeOptions):
    """On what the states are compared, and with what."""

    tasks: Names = ()
    """Names of tasks that the run scores; empty for all of them that have prompts."""
    limit: Annotated[int, Field(ge=LEAST)] = LIMIT
    """Take a fixed random sample of so many inputs of each task; of `prompts` the first so many."""
    controls: str | None = None
    """The directory of a finished run of the method `single` with this probe and the same tasks and limit:
    its models, each tuned on one task alone, are MOSSA's controls."""
    prompts: str | None = None
    """Instead of the tasks' inputs one of TRACE's sets of prompts, or the path of a JSON or JSONL file whose
    rows have a `prompt`."""

    @model_validator(mode="after")
    def _of_tasks_or_prompts(self) -> LayersOptions:
        if self.prompts is not None and (self.tasks or self.controls):
            raise ValueError(
                "prompts takes the place of the tasks' inputs, and has no controls; name prompts or tasks"
            )
        return self


class Layers(Probe):
    """Layers: linear CKA of each layer's states with the base model, the stage before, and a control.

    MOSSA (Zhao, Ziser and Cohen, arXiv 2410.20008) holds a model against a control that was tuned on one task
    alone, on that task's held-out inputs: where they are alike, the model holds what the task needs. A state
    is that of the last token of an input. A part is a layer on a task's inputs, counted from 1; the last one
    comes after the final norm. Its value is the debiased estimate with the base model: 1 is a layer
    that says the same as before. Under `more` stand MOSSA's biased estimate, the likeness to the stage before
    and to the control, and `gain`: how much more like the control this model is than the base is, the paper's
    figure. There is no delta: the base is 1 against itself.

    A state that has changed changes all above it. `own change` tells what a layer does otherwise by itself:
    the likeness of what goes into it, less the likeness of what it adds. That is ours.

    The states of every stage are kept in the probe's folder, in fp32: inputs × (layers + 2) × width numbers
    for each task and stage.
    """

    Options = LayersOptions

    def __init__(self, options: LayersOptions, data_dir: Path | None) -> None:
        super().__init__(options, data_dir)
        self.tasks: list[RunTask] = []
        self.texts: list[str] = []
        if options.prompts is not None:
            self.texts = read_prompts(options.prompts, data_dir)[: options.limit]
            if len(self.texts) < LEAST:
                raise UserError("evaluation.probes.layers: it needs four prompts or more to compare layers.")
        self.controls: Mapping[str, Control] = {}
        if options.controls is not None:
            self.controls = controls_of(Path(options.controls), options.limit, LIMIT, CONTROLS)

    def take_tasks(self, tasks: Sequence[RunTask]) -> None:
        """Choose among the run's tasks.

        Raises:
            UserError: If the options name another, or one that has no prompts or too few examples.
        """
        if self.texts:
            return
        named = chosen_tasks(tasks, self.options.tasks, "layers")
        why = {one.task.name: reason for one in named if (reason := _unfit(one)) is not None}
        self.tasks = [one for one in named if one.task.name not in why]
        left_out = "; ".join(f"{name} {reason}" for name, reason in why.items())
        if not self.tasks or (why and self.options.tasks):
            raise UserError(f"evaluation.probes.layers: {left_out}.")
        if why:
            self.notes = [f"Probe layers: no map of {left_out}."]
        if self.options.controls is not None and not any(
            one.task.name in self.controls for one in self.tasks
        ):
            raise UserError(
                f"{CONTROLS}: {self.options.controls} was tuned on none of "
                f"{', '.join(one.task.name for one in self.tasks)} alone."
            )

    def measure(self, learner: Learner, stage: str, base: str, folder: Path) -> Sequence[Part]:
        """A part for each layer of each task."""
        sets = self._inputs(learner)
        layers: int = learner.model.config.get_text_config().num_hidden_layers
        parts = []
        with learner.progress("layers", len(sets) * layers) as advance:
            for name, prompts in sets.items():
                kept = KeptStates(folder, name or "prompts", prompts)
                kept.keep(stage, learner.layer_states(prompts))
                models = {"own": (kept, stage), **self._others(kept, stage, base, name, prompts)}
                for layer in range(1, layers + 1):
                    parts.append(_part(f"{name} layer {layer}".strip(), models, layer, layers))
                    advance(1)
        return parts

    def _inputs(self, learner: Learner) -> dict[str, Prompts]:
        """The tokens of each task's inputs; of the set of prompts under no name."""
        positions = learner.max_positions
        if self.texts:
            tokens = tokens_of(learner.tokenizer).plain(self.texts)
            return {"": [row[-positions:] if positions else row for row in tokens]}
        found: dict[str, Prompts] = {}
        for one in self.tasks:
            longest = min(one.max_length, positions or one.max_length)
            examples = sample(one.task.name, one.examples, self.options.limit)
            encoded = encode_cached(one.task, one.prompt, learner.tokenizer, longest, examples)
            found[one.task.name] = [example.prompt for example in encoded]
        return found

    def _others(
        self, kept: KeptStates, stage: str, base: str, name: str, prompts: Prompts
    ) -> dict[str, Model]:
        """What this stage's states are held against: `base`, `before` and `control`, as far as kept."""
        others = {"base": (kept, base)} if base in kept.stages() else {}
        before = kept.before(stage)
        if before is not None:
            others["before"] = (kept, before)
        if name in self.controls:
            control = self.controls[name]
            states = KeptStates(control.folder, name, prompts)
            if control.stage not in states.stages():
                raise UserError(
                    f"{CONTROLS}: {self.options.controls} has not measured these inputs of {name} by the "
                    "probe `layers`: run it with the same tasks, prompts, limit and tokenizer."
                )
            others["control"] = (states, control.stage)
            both = base in kept.stages() and control.base in states.stages()
            if both and _differ(kept.of(base, 1), states.of(control.base, 1)):
                raise UserError(
                    f"{CONTROLS}: {self.options.controls} was tuned from another model: its base has other "
                    f"states on the inputs of {name}."
                )
        for states, other in others.values():
            states.check(other)
        return others


def _unfit(one: RunTask) -> str | None:
    """Why a task has no map; None where it has one."""
    if one.task.kind == "text":
        return "(plain text, which has no prompts)"
    if (count := len(one.examples)) < LEAST:
        return f"({count} scored examples; it takes {LEAST})"
    return None


def _differ(one: Floats, other: Floats) -> bool:
    """Whether states are those of two models."""
    return bool(np.linalg.norm(one - other) > SAME * np.linalg.norm(one))


def _part(name: str, models: Mapping[str, Model], layer: int, layers: int) -> Part:
    """One layer of `own` against the same layer of other models, on the inputs for which all are finite."""
    raw = {key: kept.of(stage, layer) for key, (kept, stage) in models.items()}
    # The top layer's state is compared after the final norm, and what the layer adds is before it.
    shown = {k: kept.of(stage, layer + 1) for k, (kept, stage) in models.items()} if layer == layers else raw
    below = {key: kept.of(stage, layer - 1) for key, (kept, stage) in models.items()}
    finite = {k: np.all([np.isfinite(some[k]).all(1) for some in (raw, shown, below)], 0) for k in models}
    if "base" not in models:
        return Part(name, None, METRIC, int(finite["own"].sum()), reason=NO_BASE)
    # A stage before, or a control, that has diverged takes away the figures with it, and no others.
    both = finite["own"] & finite["base"]
    models = {k: m for k, m in models.items() if k in ("own", "base") or (both & finite[k]).sum() >= LEAST}
    whole = np.all([finite[key] for key in models], axis=0)
    n = int(whole.sum())
    more = {"dropped": float(len(whole) - n)} if n < len(whole) else {}
    if n < LEAST:
        return Part(name, None, METRIC, n, reason=NOT_FINITE, more=more)
    raw, shown, below = (_rows(some, whole) for some in (raw, shown, below))
    found = {key: alignment(shown["own"], shown[key]) for key in models if key != "own"}
    more["biased"] = found["base"].biased
    for key in (key for key in found if key != "base"):
        more |= _numbers(key, found[key].debiased, found[key].resampled, n)
        more[f"{key} biased"] = found[key].biased
    if "control" in found:
        more |= _difference("gain", found["control"], alignment(shown["base"], shown["control"]), n)
        more["gain biased"] = found["control"].biased - biased_cka(shown["base"], shown["control"])
    for key, title in (("base", "own change"), ("before", "own change of the stage")):
        if key in found:
            change = own_change((below["own"], below[key]), (raw["own"], raw[key]))
            more |= _numbers(title, change.value, change.resampled, n)
    more = {key: value for key, value in more.items() if math.isfinite(value)}
    value = found["base"].debiased
    if math.isnan(value):
        return Part(name, None, METRIC, n, reason=ALIKE, more=more)
    return Part(name, value, METRIC, n, percentiles(found["base"].resampled, LEVEL, n), more=more)


def _rows(states: Mapping[str, Floats], kept: NDArray[np.bool_]) -> dict[str, Floats]:
    """Some of the inputs of all models alike, so that they stay paired."""
    return {key: one[kept] for key, one in states.items()}


def _difference(name: str, one: Alignment, other: Alignment, n: int) -> dict[str, float]:
    """How much likelier the first is, sample by sample of the same bootstrap."""
    return _numbers(name, one.debiased - other.debiased, one.resampled - other.resampled, n)


def _numbers(name: str, value: float, resampled: NDArray[np.float64], n: int) -> dict[str, float]:
    """A figure with the ends of its interval."""
    low, high = percentiles(resampled, LEVEL, n) or (math.nan, math.nan)
    return {name: value, f"{name} low": low, f"{name} high": high}
