"""An exported model on the Hugging Face hub: all that can be wrong is said before the model is made."""

import re
from pathlib import Path
from shlex import quote

from forgetmenot.errors import UserError

PATIENCE = 10.0  # seconds for the hub's first answer
BESIDE = {".gitattributes"}
"""What a repository holds in which nothing was put yet."""


def check_push(repository: str, *, private: bool) -> None:
    """See that a model can be put on the hub: somebody is logged in, the hub answers, and nothing is there.

    Args:
        repository: owner/name.
        private: Whether it must not be seen by others.

    Raises:
        UserError: It cannot, with the reason.
    """
    from huggingface_hub import HfApi, get_token
    from huggingface_hub.errors import RepositoryNotFoundError

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise _refused(repository, "a hub id is written owner/name.")
    if get_token() is None:
        raise _refused(repository, "no token of the hub is known here; run `hf auth login`, or set HF_TOKEN.")
    hub = HfApi()
    try:
        try:
            there = hub.model_info(repository, timeout=PATIENCE)
        except RepositoryNotFoundError:
            hub.whoami()  # which says so where it was not shown for a wrong token
            return
    except Exception as error:
        raise _refused(repository, _why(error)) from error
    if {file.rfilename for file in there.siblings or ()} - BESIDE:
        raise _refused(repository, "it is there already, and nothing is written over; give another name.")
    if private and not there.private:
        raise _refused(repository, "it is there already, and is public; give another name.")


def push(folder: Path, repository: str, *, private: bool) -> str:
    """Put an exported model on the hub, in one commit; returns its address.

    Args:
        folder: What `export` wrote.
        repository: owner/name; it is made if it is not there.
        private: Whether it is made for its owner alone.

    Raises:
        UserError: The hub did not take it, with the command that tries again.
    """
    from huggingface_hub import HfApi

    hub = HfApi()
    try:
        hub.create_repo(repository, private=private or None, exist_ok=True)
        hub.upload_folder(
            repo_id=repository, folder_path=folder, commit_message="Add a model exported by forgetmenot"
        )
    except Exception as error:
        again = f"hf upload {repository} {quote(str(folder))}{' --private' * private}"
        raise _refused(
            repository, f"{_why(error)} The export is whole in {folder}; push it by `{again}`."
        ) from error
    return f"{hub.endpoint}/{repository}"


def _refused(repository: str, why: str) -> UserError:
    return UserError(f"--push-to-hub {repository}: {why}")


def _why(error: Exception) -> str:
    """What the hub or the way there did not take, in a sentence."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    if constants.HF_HUB_OFFLINE or isinstance(error, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE keeps the hub out; unset it."
    said = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if not isinstance(error, HfHubHTTPError):
        return f"{constants.ENDPOINT} cannot be reached, or broke off: {said}."
    status = error.response.status_code
    if status == 401:
        return "the hub does not know the token; run `hf auth login`, or set another HF_TOKEN."
    if status == 403:
        return "the token may not write there; give a token that may, or a name of your own."
    return f"the hub answered {said}."
