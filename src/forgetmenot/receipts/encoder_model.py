"""A Transformers encoder (ELECTRA, RoBERTa, …) fine-tuned as a sequence classifier."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    get_linear_schedule_with_warmup,
)
from transformers.utils import logging

from forgetmenot.engine.precision import autocast
from forgetmenot.errors import UserError
from forgetmenot.hub import NotThereError, answers
from forgetmenot.metrics.metric import Floats
from forgetmenot.receipts.classifier import Labels, Texts
from forgetmenot.receipts.held_out import SEED
from forgetmenot.receipts.settings import TFIDF, ReceiptSettings

EPOCHS, LEARNING_RATE = 3, 2e-5  # BERT's (Devlin et al. 2019, A.3); SuperContext does not state its own
BATCH, LONGEST, WARMUP, WEIGHT_DECAY = 32, 256, 0.1, 0.01


def check_model(settings: ReceiptSettings) -> None:
    """See that the model's config and tokenizer can be read, before any data is.

    Raises:
        UserError: They cannot, or the tokenizer has no padding.
    """
    source, options = _source(settings)
    with _said_by_us(settings):
        AutoConfig.from_pretrained(source, **options)
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
    if tokenizer.pad_token_id is None:
        raise UserError(
            f"receipts.model: the tokenizer of {settings.model!r} has no padding; use an encoder."
        )


class EncoderClassifier:
    """Fine-tuned whole, with a new head: AdamW, a linear schedule with warm-up, a fixed seed.

    On a GPU it computes in bf16 over fp32 weights. A pair of texts goes in as a pair; further texts follow
    the second. What is longer than the model's positions, or 256 tokens, is cut, the longer text first.
    """

    def __init__(self, settings: ReceiptSettings) -> None:
        self._settings = settings
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self._model: Any = None
        self._tokenizer: Any = None

    def fit(self, texts: Sequence[Texts], labels: Labels, classes: int) -> None:
        """Fine-tune; the same on one machine every time. The random streams of others are left alone."""
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(SEED)
            self._load(classes)
            self._train(texts, torch.from_numpy(labels))

    def scores(self, texts: Sequence[Texts]) -> Floats:
        """Logits; texts of similar length are batched together."""
        self._model.eval()
        found = np.zeros((len(texts), self._model.config.num_labels))
        order = sorted(range(len(texts)), key=lambda k: sum(map(len, texts[k])))
        with torch.no_grad():
            for first in range(0, len(order), BATCH):
                rows = order[first : first + BATCH]
                found[rows] = self._logits([texts[k] for k in rows]).double().cpu().numpy()
        return found

    @property
    def parameters(self) -> int:
        """All of the model's."""
        return sum(p.numel() for p in self._model.parameters())

    def _load(self, classes: int) -> None:
        source, options = _source(self._settings)
        with _said_by_us(self._settings):
            self._tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model, found = AutoModelForSequenceClassification.from_pretrained(
                source,
                num_labels=classes,
                dtype=torch.float32,
                use_safetensors=None if self._settings.allow_bin else True,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                **options,
            )
        body = f"{model.base_model_prefix}."
        unfit = [*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])]
        lacking = sorted(name for name in unfit if name.startswith(body) and ".pooler." not in name)
        if lacking:
            raise UserError(
                f"receipts.model: the checkpoint of {self._settings.model!r} lacks weights that its "
                f"config.json names ({lacking[0]}); copy or download it again."
            )
        self._model = model.to(self._device)

    def _train(self, texts: Sequence[Texts], labels: torch.Tensor) -> None:
        epochs = self._settings.epochs or EPOCHS
        rate = self._settings.learning_rate or LEARNING_RATE
        steps = epochs * -(-len(texts) // BATCH)
        optimizer = torch.optim.AdamW(self._model.parameters(), lr=rate, weight_decay=WEIGHT_DECAY)
        schedule = get_linear_schedule_with_warmup(optimizer, int(WARMUP * steps), steps)
        self._model.train()
        for _ in range(epochs):
            for rows in torch.randperm(len(texts)).split(BATCH):  # type: ignore[no-untyped-call]
                logits = self._logits([texts[k] for k in rows.tolist()])
                loss: torch.Tensor = torch.nn.functional.cross_entropy(logits, labels[rows].to(self._device))
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()

    def _logits(self, texts: Sequence[Texts]) -> torch.Tensor:
        """Unnormalised, fp32 [texts, classes]."""
        columns = [list(column) for column in zip(*texts, strict=True)]
        if len(columns) > 2:
            columns[1:] = [[" ".join(rest) for rest in zip(*columns[1:], strict=True)]]
        positions = getattr(self._model.config, "max_position_embeddings", LONGEST)
        longest = min(LONGEST, positions, self._tokenizer.model_max_length)
        batch = self._tokenizer(
            *columns, truncation=True, max_length=longest, padding=True, return_tensors="pt"
        ).to(self._device)
        with autocast(self._device, "bf16" if self._device.type == "cuda" else "fp32"):
            logits: torch.Tensor = self._model(**batch).logits
        return logits.float()


def _source(settings: ReceiptSettings) -> tuple[str, dict[str, Any]]:
    """Where `from_pretrained` finds the model, and the options that it gets."""
    name = str(settings.model)
    if Path(name).is_dir():
        if settings.revision is not None:
            raise UserError(
                f"receipts.revision: {settings.revision!r} is for a hub id, which {name!r} is not; "
                "leave it out."
            )
        return name, {}
    if name.startswith((".", "/", "~")):
        raise UserError(f"receipts.model: there is no model directory {name!r}; check the path.")
    revision = settings.revision or "main"
    try:
        return name, {"revision": revision, "local_files_only": not answers(name, "config.json", revision)}
    except NotThereError as why:
        raise UserError(_not_found(settings, str(why))) from why


@contextmanager
def _said_by_us(settings: ReceiptSettings) -> Iterator[None]:
    """Turn what Transformers raises into a sentence, and keep its reports and bars from the screen.

    Raises:
        UserError: The model cannot be loaded.
    """
    before, shown = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    if Path(str(settings.model)).is_dir():
        logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, KeyError, HFValidationError, SafetensorError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".: ")
        cure = "" if settings.allow_bin else "; receipts.allow_bin: true reads pickled weights"
        raise UserError(_not_found(settings, first + cure)) from error
    finally:
        logging.set_verbosity(before)
        if shown:
            logging.enable_progress_bar()


def _not_found(settings: ReceiptSettings, why: str) -> str:
    return (
        f"receipts.model: {settings.model!r} could not be loaded: it is neither {TFIDF}, a model directory, "
        f"nor a hub id of an encoder that can be reached now ({why})."
    )
