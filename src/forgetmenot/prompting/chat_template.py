"""A conversation in the chat template of a checkpoint, which is kept to the limits of a prompt."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

from jinja2 import Template
from jinja2.exceptions import SecurityError

from forgetmenot.errors import UserError
from forgetmenot.prompting.limits import TooMuchError
from forgetmenot.prompting.sandbox import FAILURES, LimitedSandbox, why_it_fails

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def write_chat(
    tokenizer: "PreTrainedTokenizerBase", turns: Sequence[Mapping[str, Any]], **options: Any
) -> str:
    """Write turns in a tokenizer's chat template.

    Args:
        tokenizer: Whose template it is.
        turns: Each with "role" and "content".
        options: What Transformers' `apply_chat_template` takes besides.

    Raises:
        UserError: The template refuses these turns, fails, or does more than a prompt can need.
    """
    try:
        with _limited():
            text: str = tokenizer.apply_chat_template(list(turns), tokenize=False, **options)
    except FAILURES as error:
        if isinstance(error, (TooMuchError, RecursionError, MemoryError, SyntaxError, SecurityError)):
            raise UserError(f"the model's chat template {why_it_fails(error)}; use another.") from error
        said = str(error).rstrip(".") or type(error).__name__
        raise UserError(f"the model's chat template refuses the conversation: {said}.") from error
    return text


@contextmanager
def _limited() -> Iterator[None]:
    """Let Transformers compile chat templates in a sandbox with limits, and here alone."""
    from transformers.utils import chat_template_utils

    _sandbox()  # made while Transformers still compiles itself
    compiles = chat_template_utils._compile_jinja_template
    chat_template_utils._compile_jinja_template = _compiled
    try:
        yield
    finally:
        chat_template_utils._compile_jinja_template = compiles


@lru_cache
def _compiled(template: str) -> Template:
    return _sandbox().from_string(template)


@cache
def _sandbox() -> LimitedSandbox:
    """Transformers' own sandbox, with its filters and tags, and limits."""
    from transformers.utils.chat_template_utils import _compile_jinja_template

    return LimitedSandbox.of(_compile_jinja_template("").environment)
