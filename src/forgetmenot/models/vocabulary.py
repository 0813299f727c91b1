"""Whether a tokenizer and a model's embedding belong together: every token that text becomes has a row."""

from collections.abc import Iterator
from typing import Any

from forgetmenot.errors import UserError
from forgetmenot.models.settings import ModelSettings

NAMED = ("bos_token_id", "eos_token_id", "pad_token_id")


def check_vocabulary(settings: ModelSettings, tokenizer: Any, model: Any) -> None:
    """Refuse a tokenizer that has more tokens than the embedding has rows.

    A special token without a row is let pass where nothing writes it, as an image's in a model of text alone.

    Raises:
        UserError: A token that text, the chat template, or the end of an answer may become has no row.
    """
    rows = min(int(part.weight.shape[0]) for part in _parts(model))
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    template = str(getattr(tokenizer, "chat_template", None) or "")
    without = {
        token: id
        for token, id in tokenizer.get_vocab().items()
        if id >= rows and (token not in special or token in template)
    }
    if without:
        first = min(without, key=lambda token: without[token])
        raise UserError(
            f"The tokenizer of model {settings.name!r} has token ids up to {max(without.values())}, such as "
            f"that of {first!r}, and the model's embedding has {rows} rows; resize it with "
            "`resize_token_embeddings` and save the model again, or take the tokens out of the tokenizer."
        )
    for name in NAMED:
        if (id := getattr(tokenizer, name, None)) is not None and id >= rows:
            raise UserError(
                f"The tokenizer of model {settings.name!r} names the {name} {id}, and the model's embedding "
                f"has {rows} rows, for ids from 0; name another token in tokenizer_config.json."
            )


def _parts(model: Any) -> Iterator[Any]:
    yield model.get_input_embeddings()
    if (head := model.get_output_embeddings()) is not None:
        yield head
