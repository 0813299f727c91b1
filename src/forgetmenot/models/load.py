"""The loader of causal language models and tokenizers, from the hub or a directory; safe by default."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from huggingface_hub.errors import HFValidationError
from peft import prepare_model_for_kbit_training
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging
from transformers.utils.hub import extract_commit_hash

from forgetmenot.errors import UserError
from forgetmenot.hub import NotThereError, answers
from forgetmenot.models.chat_templates import CHATML, CHATML_END, chat_template
from forgetmenot.models.gguf import dequantized, gguf_path, reading
from forgetmenot.models.revision import hash_of, revision_of
from forgetmenot.models.settings import BUNDLED, ModelSettings
from forgetmenot.models.vocabulary import check_vocabulary

NF4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True)


@dataclass(frozen=True)
class Loaded:
    """A model with what identifies it.

    Attributes:
        model: In evaluation mode; its own dropout is set to 0. It knows its tokenizer (`model.tokenizer`).
        revision: The hub commit, or a hash of a directory's weight files or of a GGUF file.
        dropout: The dropout settings that were not 0, with their values: recorded, since they were set to 0.
    """

    model: Any
    tokenizer: Any
    revision: str
    dropout: dict[str, float]

    def __post_init__(self) -> None:
        self.model.tokenizer = self.tokenizer


def load_model(settings: ModelSettings, *, trainable: bool, device: torch.device) -> Loaded:
    """Load a model in the dtype that its use needs, and its tokenizer.

    Args:
        settings: Which model.
        trainable: Whether the weights themselves learn (full fine-tuning), which takes fp32.
        device: Where to put it.

    Raises:
        UserError: If there is no such model, its files are damaged, they need a permission not given, or the
            tokenizer does not know what the chat template ends a turn with.
    """
    template = chat_template(settings)
    loaded = _loaded(settings, trainable=trainable, device=device)
    if template is not None:
        if settings.chat_template == CHATML and CHATML_END not in loaded.tokenizer.get_vocab():
            raise UserError(
                f"model.chat_template: {CHATML} ends a turn with {CHATML_END}, which the tokenizer of "
                f"{settings.title} does not know; take plain, or a Jinja file."
            )
        loaded.tokenizer.chat_template = template
    return loaded


def _loaded(settings: ModelSettings, *, trainable: bool, device: torch.device) -> Loaded:
    """The model with the tokenizer as its files have it."""
    if settings.in_gguf:
        path = gguf_path(settings)
        with _reports_kept_down(), no_progress_bars():
            return _load_gguf(settings, path, trainable=trainable, device=device)
    source, options = model_source(settings)
    if not Path(source).is_dir():
        try:
            options["local_files_only"] = not answers(source, "config.json", options["revision"])
        except NotThereError as why:
            raise UserError(_not_found(settings, str(why))) from why
    try:
        with _reports_kept_down(), no_progress_bars() if Path(source).is_dir() else nullcontext():
            return _load(settings, source, options, trainable=trainable, device=device)
    except SafetensorError as error:
        raise UserError(
            f"The weights of model {settings.name!r} are damaged ({error}); copy or download them again."
        ) from error
    except (OSError, ValueError, KeyError, AssertionError, HFValidationError) as error:
        raise UserError(_explain(settings, error)) from error


@contextmanager
def no_progress_bars() -> Iterator[None]:
    """Keep Transformers' bars for local files from tearing our own display apart."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


@contextmanager
def _reports_kept_down() -> Iterator[None]:
    """Keep Transformers' own report of missing weights from the screen: `_refuse_unfit` says it."""
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


def _load(
    settings: ModelSettings, source: str, options: dict[str, Any], *, trainable: bool, device: torch.device
) -> Loaded:
    config = AutoConfig.from_pretrained(source, **options)
    dropout = _disable_dropout(config)
    tokenizer = AutoTokenizer.from_pretrained(source, **options)
    if settings.quantization is not None:
        options |= {"quantization_config": NF4, "device_map": {"": device}}
    model, found = AutoModelForCausalLM.from_pretrained(
        source,
        config=config,
        dtype=_dtype(settings, trainable=trainable, device=device),
        use_safetensors=None if settings.allow_bin else True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **options,
    )
    _refuse_unfit(settings, found)
    check_vocabulary(settings, tokenizer, model)
    if settings.quantization is not None:  # what is not quantized, such as norms, in fp32
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    return Loaded(model.to(device).eval(), tokenizer, revision_of(settings, source, options), dropout)


def _load_gguf(settings: ModelSettings, path: Path, *, trainable: bool, device: torch.device) -> Loaded:
    content = hash_of([path])
    described, tokenizer = _described(path, content)
    config = copy.deepcopy(described)
    dropout = _disable_dropout(config)
    model, found = dequantized(path, config, _dtype(settings, trainable=trainable, device=device))
    _refuse_unfit(settings, found)
    check_vocabulary(settings, tokenizer, model)
    model.name_or_path = model.config.name_or_path = tokenizer.name_or_path = settings.name
    commit = extract_commit_hash(str(path), None) if settings.on_hub else None
    return Loaded(model.to(device).eval(), tokenizer, commit or content, dropout)


@lru_cache(maxsize=2)
def _described(path: Path, content: str) -> tuple[Any, Any]:
    """The configuration and the tokenizer in a GGUF file, read once: a large vocabulary takes seconds."""
    with reading(path) as (folder, named):
        return AutoConfig.from_pretrained(folder, **named), AutoTokenizer.from_pretrained(folder, **named)


def _refuse_unfit(settings: ModelSettings, found: dict[str, Any]) -> None:
    """Refuse weights that do not fill the model: Transformers draws the rest at random.

    Args:
        settings: Which model.
        found: The loading info of `from_pretrained`.
    """
    other_shape = [name for name, *_ in found["mismatched_keys"]]
    for how, names in (("has other shapes for", other_shape), ("lacks", sorted(found["missing_keys"]))):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise UserError(
                f"The checkpoint of model {settings.name!r} {how} weights that its config.json names "
                f"({names[0]}{more}); copy or download it again."
            )


def model_source(settings: ModelSettings) -> tuple[str, dict[str, Any]]:
    """Where `from_pretrained` finds the model, and the options that it gets."""
    options: dict[str, Any] = {"trust_remote_code": settings.trust_remote_code}
    if settings.revision is not None and (settings.name in BUNDLED or Path(settings.name).is_dir()):
        raise UserError(
            f"model.revision: {settings.revision!r} is for a hub id, which {settings.name!r} is not; "
            "leave it out."
        )
    if settings.name in BUNDLED:
        folder = resources.files("forgetmenot.models") / "quickstart" / BUNDLED[settings.name]
        return str(folder), options
    if Path(settings.name).is_dir():
        if not (Path(settings.name) / "config.json").is_file():
            raise UserError(
                f"Model directory {settings.name!r} has no config.json; "
                "give a directory that `save_pretrained` wrote, or a hub id."
            )
        return settings.name, options
    if settings.name.startswith((".", "/", "~")):
        raise UserError(f"There is no model directory {settings.name!r}; check the path.")
    return settings.name, {**options, "revision": settings.revision or "main"}


def published_dtype(settings: ModelSettings) -> torch.dtype | None:
    """The dtype that a model's config names; None where it names none, and for a GGUF file."""
    if settings.in_gguf:
        return None
    source, options = model_source(settings)
    dtype = AutoConfig.from_pretrained(source, local_files_only=True, **options).dtype
    return dtype if isinstance(dtype, torch.dtype) else None


def _dtype(settings: ModelSettings, *, trainable: bool, device: torch.device) -> torch.dtype:
    if trainable:
        return torch.float32
    if settings.dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return torch.float32 if settings.dtype == "fp32" else torch.bfloat16


def _disable_dropout(config: Any) -> dict[str, float]:
    """Set every dropout of a config, and of the text model's within it, to 0; return those that were not."""
    found = {}
    for part in (config, config.get_text_config()):
        for key, value in part.to_dict().items():
            if "drop" in key and isinstance(value, int | float) and not isinstance(value, bool) and value > 0:
                found[key] = float(value)
                setattr(part, key, 0.0)
    return found


def _explain(settings: ModelSettings, error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    first = text.splitlines()[0].rstrip(".: ")
    if "trust_remote_code" in text:
        return (
            f"Model {settings.name!r} comes with code of its own; "
            "set model.trust_remote_code: true if you trust it."
        )
    if "padding_idx" in text.lower():  # what PyTorch's embedding asserts
        return (
            f"The config.json of model {settings.name!r} names a pad_token_id for which its embedding has no "
            "row; mend or remove it."
        )
    if "gated repo" in text:
        return (
            f"Model {settings.name!r} is gated: accept its licence at https://huggingface.co/{settings.name} "
            "and log in with `hf auth login`, or set HF_TOKEN."
        )
    if not settings.allow_bin and ("safetensors" in text or "no file named" in text):
        return (
            f"Model {settings.name!r} has no safetensors weights; "
            "set model.allow_bin: true to read its .bin files (unpickled with weights_only)."
        )
    if AutoModelForCausalLM.__name__ in text:
        return f"Model {settings.name!r} is no causal language model; take one that generates text."
    if "tokenizer" in text:
        return f"Model {settings.name!r} has no tokenizer that can be read ({first}); save one beside it."
    if Path(settings.name).is_dir():
        return f"The model in the directory {settings.name!r} could not be loaded: {first}."
    return _not_found(settings, first)


def _not_found(settings: ModelSettings, why: str) -> str:
    return (
        f"Model {settings.name!r} could not be loaded: it is neither a bundled model "
        f"({', '.join(BUNDLED)}), a local directory, nor a hub id that can be reached now ({why})."
    )
