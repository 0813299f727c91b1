"""A folder that sentence-transformers loads, whose vectors of raw sentences are `embed`'s.

What stands around a sentence, and how the sentence is written, becomes part of the tokenizer: rules of its
normalizer, which every runtime of Hugging Face tokenizers applies. So no code goes with the model, and
nothing is left to the caller. The tokenizer is good for nothing else: the folder is no model to chat with or
to train.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from forgetmenot.embedding.prompt import EmbeddingSettings, around
from forgetmenot.errors import UserError
from forgetmenot.prompting.tokens import WRITES_A_PROMPT
from forgetmenot.record.files import write_json, write_text

SETTINGS = "embedding.json"
POOLED_BY = {"prompt": "lasttoken", "last": "lasttoken", "mean": "mean"}
CARD = """\
---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
---

# Sentence embeddings of {name}

```python
from sentence_transformers import SentenceTransformer

vectors = SentenceTransformer("{folder}").encode(["A raw sentence", "Is it another one?"])
```

A sentence is put to the model as `{asked}`, and its vector is {pooling}. The
tokenizer does that itself: give it raw sentences, without a prompt. A sentence that is cut (`max_seq_length`)
loses the end of its prompt; split longer ones. Compare vectors by their cosine.
"""
OF_POOLING = {
    "prompt": "the last layer's state of the last token",
    "last": "the last layer's state of the last token",
    "mean": "the mean of the last layer's states",
}


def export_sentence_transformer(
    model: Any, tokenizer: Any, settings: EmbeddingSettings, name: str, folder: Path
) -> None:
    """Write a model for sentence-transformers.

    Args:
        model: A plain Transformers causal LM, its adapters merged.
        tokenizer: Its own.
        settings: How a sentence becomes a vector.
        name: What the model is called.
        folder: Where to; it is there.

    Raises:
        UserError: The tokenizer is no fast one, which is what rules can be added to.
    """
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise UserError(
            "This model's tokenizer is written in Python, and nothing can be added to its normalizer; only "
            "models with a tokenizer.json can be exported for sentence-transformers."
        )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, with_prompt(content, settings))
    (folder / "chat_template.jinja").unlink(missing_ok=True)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    own = {
        "tokenizer_class": "PreTrainedTokenizerFast",  # a model's own, as Gemma's, writes its own normalizer
        "split_special_tokens": True,
        "padding_side": "right",
        "pad_token": config.get("pad_token") or tokenizer.eos_token,
        WRITES_A_PROMPT: True,
    }
    write_json(path, config | own)
    width = model.get_output_embeddings().weight.shape[-1]
    mode = POOLED_BY[settings.pooling]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {
        "word_embedding_dimension": width,
        "pooling_mode_cls_token": False,
        "pooling_mode_mean_tokens": mode == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
        "pooling_mode_lasttoken": mode == "lasttoken",
        "include_prompt": True,
    }
    write_json(folder / "1_Pooling" / "config.json", pooling)
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    write_json(
        folder / "modules.json",
        [
            {"idx": k, "name": str(k), "path": where, "type": f"sentence_transformers.models.{kind}"}
            for k, (where, kind) in enumerate(modules)
        ],
    )
    longest = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": longest, "do_lower_case": False})
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": {}, "default_prompt_name": None, "similarity_fn_name": "cosine"},
    )
    write_json(folder / SETTINGS, settings.model_dump(mode="json"))
    before, behind = around(settings)
    write_text(
        folder / "README.md",
        CARD.format(
            name=name, folder=folder.name, asked=f"{before}…{behind}", pooling=OF_POOLING[settings.pooling]
        ),
    )


def settings_of_export(folder: Path) -> EmbeddingSettings | None:
    """How `embed` gets the vectors of such a folder, whose tokenizer writes the prompt; None of others."""
    if not (folder / SETTINGS).is_file():
        return None
    made = EmbeddingSettings.model_validate_json((folder / SETTINGS).read_text(encoding="utf-8"))
    return EmbeddingSettings(pooling="mean" if made.pooling == "mean" else "last")


def with_prompt(tokenizer: dict[str, Any], settings: EmbeddingSettings) -> dict[str, Any]:
    """The content of a tokenizer.json that writes the prompt around a raw sentence itself.

    Words that were added to a vocabulary are looked for before the normalizer, which would then see only what
    lies between them: special ones are read as text (`split_special_tokens`), and others, such as Gemma's
    runs of blanks and HTML tags, are added no more. A sentence with such a tag is split there into other
    tokens than by the model's own tokenizer.
    """
    rules = [_replace({"Regex": r"\s+"}, " "), {"type": "Strip", "strip_left": True, "strip_right": True}]
    if settings.pooling == "prompt":
        rules += [
            _replace({"Regex": r"(?<=[^.?\"'])\z"}, "."),
            _replace({"String": '"'}, "'"),
            _replace({"Regex": r"\?\z"}, "."),
        ]
        before, behind = around(settings)
        rules += [_replace({"Regex": r"\z"}, behind), {"type": "Prepend", "prepend": before}]
    own = tokenizer["normalizer"]
    if own is not None:
        rules += own["normalizers"] if own["type"] == "Sequence" else [own]
    return {
        **tokenizer,
        "normalizer": {"type": "Sequence", "normalizers": rules},
        "added_tokens": [token for token in tokenizer["added_tokens"] if token["special"]],
        "truncation": None,
        "padding": None,
    }


def _replace(pattern: dict[str, str], content: str) -> dict[str, Any]:
    return {"type": "Replace", "pattern": pattern, "content": content}
