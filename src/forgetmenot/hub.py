"""The Hugging Face hub: whether a repository can be had now, asked once and briefly.

Its client asks up to six times over half a minute for each file that it lacks, also where a name was only
mistyped, and where there is no network.
"""

from typing import Literal


class NotThereError(Exception):
    """Why a repository can be had neither from the hub nor from the cache, as a clause."""


def answers(
    repository: str, file: str, revision: str | None, kind: Literal["model", "dataset"] = "model"
) -> bool:
    """Whether the hub has a repository and answers; False if it does not answer and the cache has the file.

    Args:
        repository: Its id.
        file: A file of it to ask for; whether the repository has this one does not matter.
        revision: A branch, tag or commit; the main branch where None.
        kind: What it is a repository of.

    Raises:
        NotThereError: If the hub says that it does not have it, or nobody does.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        cached = try_to_load_from_cache(repository, file, revision=revision, repo_type=kind)
        if constants.HF_HUB_OFFLINE:
            why = "it is not in the cache, and HF_HUB_OFFLINE keeps the hub out"
        else:
            url = hf_hub_url(repository, file, revision=revision, repo_type=kind)
            get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
            return True
    except HFValidationError as error:
        raise NotThereError("a hub id is written owner/name") from error
    except GatedRepoError:
        return True  # what to do about it is said where it is loaded
    except RepositoryNotFoundError as error:
        raise NotThereError(
            "the hub has no such repository, or it is private and you are not logged in"
        ) from error
    except RevisionNotFoundError as error:
        raise NotThereError(f"the hub has no revision {revision!r} of it") from error
    except HfHubHTTPError:
        return True  # whether a second try helps, the client knows
    except Exception as error:  # noqa: BLE001 (which ones, depends on the client's HTTP library)
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        why = f"{constants.ENDPOINT} cannot be reached: {reason}"
    if isinstance(cached, str):
        return False
    raise NotThereError(why)
