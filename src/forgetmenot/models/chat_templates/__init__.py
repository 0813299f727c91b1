"""Chat templates for models that have none: `chatml` and `plain`, or a file of the user's."""

from pathlib import Path

from forgetmenot.errors import UserError
from forgetmenot.models.settings import ModelSettings

FOLDER = Path(__file__).parent
CHATML, CHATML_END = "chatml", "<|im_end|>"


def chat_template(settings: ModelSettings) -> str | None:
    """The chat template that the settings name; None where they name none.

    Raises:
        UserError: There is no such file, and none of ours has this name.
    """
    if settings.chat_template is None:
        return None
    ours = {path.name.removesuffix(".jinja"): path for path in FOLDER.glob("*.jinja")}
    path = ours.get(settings.chat_template, Path(settings.chat_template))
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UserError(
            f"model.chat_template: {settings.chat_template!r} cannot be read ({why}); name a Jinja file, or "
            f"{' or '.join(sorted(ours))}."
        ) from error
