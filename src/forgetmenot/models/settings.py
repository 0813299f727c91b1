"""The `model` and `adapter` parts of a config."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from forgetmenot.errors import UserError, nearest
from forgetmenot.record.layer_map import first_layer_of_map
from forgetmenot.settings import (
    NonNegativeFloat,
    NonNegativeInt,
    Number,
    PositiveFloat,
    PositiveInt,
    Settings,
    by_name,
)

BUNDLED = {
    "quickstart": "base",
    "quickstart-small": "small",
}
"""Models that come with the package: name → folder."""

GGUF_TYPES = ("F16", "Q8_0", "Q4_0")
"""The types of weights that `fmn export --gguf` writes; the gguf package does not encode K-quants."""


class ModelSettings(Settings):
    """Which model: the `model` part of a config."""

    name: Annotated[str, Field(min_length=1)] = "quickstart"
    """A bundled model (`fmn list models`), a hub id, a directory, or the path of a .gguf file (docs/gguf.md).
    `model: NAME` is short for it."""
    gguf_file: str | None = None
    """The file of the directory or of the hub repository that is the model, with its tokenizer; nothing else
    there is read."""
    revision: str | None = None
    """A branch, tag or commit of the hub repository; null is `main`."""
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    """The type of the weights that do not learn; those that learn are always fp32. `auto` is bf16 on a CUDA
    device and fp32 elsewhere."""
    quantization: Literal["nf4"] | None = None
    """`nf4` keeps the linear layers' weights in four bits (doubly quantized); for LoRA only."""
    chat_template: str | None = None
    """A chat template for a model that has none, or in place of its own: a Jinja file, `chatml` (for
    tokenizers that know `<|im_end|>`, as Qwen's), or `plain` (`User:`, `Assistant:`, EOS after an answer)."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may be run."""
    allow_bin: bool = False
    """Whether pickled `.bin` weights are read (with `weights_only=True`) where there are no safetensors."""

    @property
    def title(self) -> str:
        """What readers call it: the name, with the file of a directory or repository."""
        return self.name if self.gguf_file is None else f"{self.name.rstrip('/')}/{self.gguf_file}"

    @property
    def in_gguf(self) -> bool:
        """Whether weights, configuration and tokenizer are one GGUF file."""
        return self.gguf_file is not None or self.name.endswith(".gguf")

    @property
    def on_hub(self) -> bool:
        """Whether the name is a hub id: it names nothing that is here."""
        here = self.name in BUNDLED or self.name.endswith(".gguf") or Path(self.name).is_dir()
        return not here

    @model_validator(mode="after")
    def _one_file(self) -> Self:
        if self.gguf_file is not None and self.name.endswith(".gguf"):
            raise ValueError("name is a GGUF file already; leave gguf_file out, or name its folder")
        if self.in_gguf and self.quantization is not None:
            raise ValueError(
                "quantization has no effect with a GGUF file, whose weights are dequantized; leave it out"
            )
        return self


@dataclass(frozen=True)
class Uses:
    """What is known of a kind of adapter before torch is imported.

    Attributes:
        words: What learns, in a few words for readers; {rank} stands for a setting.
        keys: The settings of `adapter` that mean something with it, `kind` aside.
        merges: Whether what it learned can become part of the weights.
        base_learns: Whether the base's own weights learn: they are loaded in fp32 and cannot be quantized,
            and large models recompute activations.
    """

    words: str
    keys: tuple[str, ...] = ()
    merges: bool = True
    base_learns: bool = False


LAYERS = ("layers", "frozen_cache_gb")

KINDS: dict[str, Uses] = {
    "lora": Uses("LoRA, rank {rank}", ("rank", "alpha", "dropout", "targets", "per_stage", *LAYERS)),
    "full": Uses("full fine-tuning", LAYERS, base_learns=True),
    "prompt": Uses("soft prompt, {tokens} tokens", ("tokens", "per_stage"), merges=False),
    "bridge": Uses(
        "bridge to {augmenting[name]}", ("augmenting", "connections", "heads", "per_stage"), merges=False
    ),
}
"""The kinds of this package, known before torch is imported; `models.adapt.ADAPTERS` has what they do."""

ENTRY_POINTS = "forgetmenot.adapters"


def kinds_of_others() -> dict[str, EntryPoint]:
    """The kinds that other packages give through entry points, by name and not loaded."""
    return {point.name: point for point in entry_points(group=ENTRY_POINTS)}


def known_kinds() -> tuple[str, ...]:
    """The names that `adapter.kind` takes."""
    return (*KINDS, *kinds_of_others())


def used_by(kind: str) -> Uses:
    """The settings that mean something with a kind; that of another package is loaded to ask it."""
    if kind in KINDS:
        return KINDS[kind]
    uses: Uses = kinds_of_others()[kind].load().uses
    return uses


def _known_kind(kind: str) -> str:
    if kind not in KINDS and kind not in kinds_of_others():  # others are looked for where they must be: 25 ms
        raise ValueError(f"there is no kind of adapter {kind!r}. {nearest(kind, known_kinds())}")
    return kind


def _layers(value: Any) -> Any:
    keys = list(value) if isinstance(value, Mapping) else []
    if keys == ["auto"]:
        return {"from": _first_of(value["auto"])}
    if value == "auto":
        raise ValueError(
            "auto takes the map of a pilot run, as {auto: RUN_DIR}: finished, with the probe layers and "
            "evaluation.split: select"
        )
    if value != "all" and keys not in (["top"], ["from"]):
        raise ValueError(f"give all, {{top: k}}, {{from: i}} or {{auto: RUN_DIR}}, not {value!r}")
    if value == {"top": 0}:
        raise ValueError("{top: 0} lets nothing learn; give 1 or more")
    return value


def _first_of(pilot: Any) -> int:
    try:
        return first_layer_of_map(Path(str(pilot)))
    except UserError as error:
        raise ValueError(f"auto: {error}") from error


ModelOrName = Annotated[ModelSettings, BeforeValidator(by_name, json_schema_input_type=str | ModelSettings)]
"""Settings of a model, or its name alone."""

LayersWritten = Literal["all"] | dict[Literal["top", "from"], NonNegativeInt] | dict[Literal["auto"], str]


class AdapterSettings(Settings):
    """Which parameters learn: the `adapter` part of a config."""

    kind: Annotated[str, AfterValidator(_known_kind), Field(examples=list(KINDS))] = "lora"
    """What learns: `lora` adapters; all weights (`full`); a soft `prompt` before a model that stays as it is;
    or a `bridge` from such a model to the model `augmenting` (docs/composition.md). A method that needs
    certain values sets the keys of `adapter` that you leave out, and refuses other values."""
    rank: Annotated[PositiveInt, Field(le=65_536)] = 8
    """LoRA's inner width."""
    alpha: PositiveFloat = 16.0
    """LoRA's scale is alpha / rank."""
    dropout: Number = Field(default=0.0, ge=0, lt=1)
    """The share of the adapters' inputs that is dropped in training."""
    targets: Literal["all-linear"] | Annotated[list[str], Field(min_length=1)] = "all-linear"
    """Where LoRA learns: `all-linear` is every linear layer but the LM head; else the names of modules."""
    tokens: Annotated[PositiveInt, Field(le=100_000)] = 10
    """The length of a soft prompt."""
    augmenting: ModelOrName = ModelSettings(name="quickstart-small")
    """The model that a bridge leads to. It takes what `model` takes, but for `quantization`; its name alone
    is short for it."""
    connections: PositiveInt | Literal["auto"] = "auto"
    """How many layers of each model a bridge connects, evenly spaced. `auto` is one for every four layers of
    the augmenting model, as in CALM's paper."""
    heads: PositiveInt | Literal["auto"] = "auto"
    """The attention heads of a bridge. `auto` is as many as the run's model has."""
    per_stage: Literal["continue", "new", "merge"] = "continue"
    """What later stages do: `continue` the same adapter; add a `new` one beside the earlier ones, which stay
    active but frozen (of bridges the last is used); or `merge` it into the weights and begin a new one."""
    layers: Annotated[
        Literal["all"] | dict[Literal["top", "from"], NonNegativeInt],
        BeforeValidator(_layers, json_schema_input_type=LayersWritten),
    ] = "all"
    """Which layers learn: `all`; `{top: k}`, the k uppermost; `{from: i}`, those from number i on, counted
    from 0; or `{auto: RUN_DIR}`, those of the map of a pilot run, which is then written out as `{from: i}`
    (docs/layers.md). Whatever lies below never learns, and is computed once for all stages, epochs and seeds.
    With `full` the final norm learns as well, and an LM head that is not tied to the input embeddings."""
    frozen_cache_gb: NonNegativeFloat = 10.0
    """The most gigabytes on disk for what the layers below give (`fmn cache`). A run that needs more, as with
    0, computes them in every pass."""

    @property
    def in_words(self) -> str:
        """What learns, in a few words: "LoRA, rank 8, top 10 layers"."""
        words = used_by(self.kind).words.format(**self.model_dump())
        if self.layers == "all":
            return words
        ((how, number),) = self.layers.items()
        return f"{words}, top {number} layers" if how == "top" else f"{words}, layers from {number} on"

    @model_validator(mode="after")
    def _all_of_use(self) -> Self:
        uses = used_by(self.kind)
        for name, field in type(self).model_fields.items():
            if name not in ("kind", *uses.keys) and getattr(self, name) != field.default:
                raise ValueError(f"{name} has no effect with kind: {self.kind}; leave it out")
        unused = self.frozen_cache_gb != type(self).model_fields["frozen_cache_gb"].default
        if self.layers == "all" and unused:
            raise ValueError("frozen_cache_gb has no effect with layers: all; leave it out")
        if self.augmenting.quantization is not None:
            raise ValueError("augmenting: quantization is for the run's own model; leave it out")
        if self.per_stage == "merge" and not uses.merges:
            raise ValueError(f"a {self.kind} cannot be merged into the weights; per_stage is continue or new")
        return self
