"""Why a checkpoint could not be fetched from the Hub, in a sentence with the remedy."""

from __future__ import annotations

import errno
import os

_OFFLINE = "HF_HUB_OFFLINE"


def download_problem(model: str, revision: str | None, error: Exception) -> str:
    """The message for an exception of ``huggingface_hub``.

    Args:
        model: a Hub id.
        revision: branch, tag or commit; None for the main branch.
        error: what ``snapshot_download`` raised.
    """
    from huggingface_hub import errors

    named = f"model={model!r} (revision {revision or 'main'}) could not be fetched from the Hub: "
    if isinstance(error, errors.GatedRepoError):
        return (
            f"{named}access to it is restricted. Ask for access at https://huggingface.co/{model}, then log in with "
            "`hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{named}it has no revision {revision!r}. Give one of its branches, tags or commits, or leave it out."
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"{named}there is no public repository of this name. Check the spelling; if it is private, log in with "
            "`hf auth login` or set HF_TOKEN."
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"{named}the disk is full ({error}). Make room, or set HF_HOME to a folder on another disk."
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
        return f"{named}the cache cannot be written ({error}). Set HF_HOME to a folder that you may write to."
    unreachable = (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError, TimeoutError)
    if isinstance(error, unreachable):
        switched_off = os.environ.get(_OFFLINE, "").upper() in ("1", "ON", "YES", "TRUE")
        network = f"unset {_OFFLINE}, which is set" if switched_off else "check the network"
        return (
            f"model={model!r} is not a local folder, not in the Hugging Face cache, and the Hub cannot be reached. "
            f"To go on, {network}, download it elsewhere and give its folder, or use model='embedded'."
        )
    return f"{named}{error}. Check the spelling, and `hf auth login` if the repository is gated."
