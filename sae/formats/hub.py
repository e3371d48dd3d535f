"""Where a dictionary lies: on this disk, or in a repository of the hub."""

import re
from dataclasses import dataclass
from pathlib import Path

from httpx2 import HTTPError
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from sae.errors import UserError, nearest
from sae.formats.saelens_read import CONFIG, SCALER, WEIGHTS
from sae.quiet import no_progress_bar

PREFIX = "hf:"
_FORM = "Give hf:ORG/REPO, hf:ORG/REPO/PATH or hf:ORG/REPO/PATH@REVISION."
_NAMES = ("sae.safetensors", "ae.pt", "params.npz", WEIGHTS)
_BESIDE = (CONFIG, SCALER, "config.json", "eval_results.json", "metrics.json")
_MOST_SHOWN = 20


@dataclass(frozen=True, slots=True)
class HubPlace:
    """A directory or file of a hub repository."""

    repository: str
    """``ORG/REPO``."""
    path: str
    """Directory or file inside it; empty for its root."""
    revision: str | None
    """Branch, tag or commit; None for the default branch."""


def locate(spec: str) -> Path:
    """The local path of `spec`: itself, or where the files of ``hf:ORG/REPO/PATH[@REVISION]`` were fetched to.

    Only the files of that one dictionary are fetched. Raises `UserError` for a malformed `spec`, for a repository or
    path that is not there, and where the hub cannot be reached and the files are not here yet.
    """
    if not spec.startswith(PREFIX):
        return Path(spec).expanduser()
    place = parse(spec)
    folder = f"{place.path}/" if place.path else ""
    parent = f"{place.path.rpartition('/')[0]}/" if "/" in place.path else ""
    wanted = [place.path, *(folder + name for name in (*_NAMES, *_BESIDE)), *(parent + name for name in _BESIDE)]
    try:
        with no_progress_bar():
            root = snapshot_download(
                place.repository, revision=place.revision, allow_patterns=[name for name in wanted if name]
            )
    except LocalEntryNotFoundError as error:
        raise UserError(
            f"{spec} is not on this machine, and the hub cannot be reached.",
            str(error).splitlines()[0],
            "Fetch it once with a network connection, or give a local directory.",
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError, HTTPError) as error:
        raise UserError(
            f"The hub gives no {place.repository}{f' at {place.revision}' if place.revision else ''}.",
            str(error).splitlines()[0],
            "Check the name and the revision; a private one needs HF_TOKEN.",
        ) from error
    found = Path(root) / place.path
    if not found.exists():
        raise UserError(f"{place.repository} has no {place.path}.", do=_would_fit(place))
    return found


def parse(spec: str) -> HubPlace:
    """The parts of ``hf:ORG/REPO/PATH[@REVISION]``. Raises `UserError` for anything else."""
    whole = re.fullmatch(r"hf:([^/@\s]+/[^/@\s]+)(/[^@\s]*)?(?:@(\S+))?", spec)
    path = (whole.group(2) or "").strip("/") if whole else ""
    if whole is None or any(part in {"", ".", ".."} for part in path.split("/") if path):
        raise UserError(f"{spec} names nothing on the hub.", do=_FORM, usage=True)
    return HubPlace(whole.group(1), path, whole.group(3))


def _would_fit(place: HubPlace) -> str:
    """The paths in the repository that hold a dictionary, as far as the hub can be asked."""
    try:
        files = HfApi().list_repo_files(place.repository, revision=place.revision)
    except (HfHubHTTPError, OSError, HTTPError):
        return _FORM
    fits = sorted({file.rpartition("/")[0] for file in files if file.rpartition("/")[2] in _NAMES})
    if not fits:
        return "Nothing in it is a dictionary in a format known here."
    return nearest(place.path, fits) if len(fits) <= _MOST_SHOWN else f"{nearest(place.path, fits)} {_FORM}"
