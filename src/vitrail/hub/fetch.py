"""Weights from the net, through huggingface_hub and timm's addresses: once, and checked.

What the cache holds is used without a question to the net. The hub stores a large file under its
SHA-256, timm's older addresses carry the first eight digits of it: a file that differs is refused.
"""

import hashlib
import re
import socket
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from vitrail.errors import UserError
from vitrail.files import resolve_path

FILES = ("model.safetensors", "pytorch_model.bin")
"""What a repository or a saved folder calls its weights; the first that is there is taken."""
WAIT = 3.0
"""Seconds to wait for an answer before saying that the net is away."""
REPOSITORY = re.compile(r"^(?:hf-hub:)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?$")
"""``owner/name``, with or without ``@revision``."""


def fetch(config: Mapping[str, Any], cache_dir: str | Path | None = None) -> Path:
    """The weight file that one of timm's ``pretrained_cfg`` names.

    Raises:
        UserError: it names none, the net is away, or the file is damaged.
    """
    if config.get("file"):
        return weights_in(Path(config["file"]))
    if config.get("hf_hub_id"):
        name, _, revision = config["hf_hub_id"].partition("@")
        only = config.get("hf_hub_filename")
        return from_hub(name, revision or None, (only,) if only else FILES, cache_dir)
    if config.get("url"):
        return from_url(config["url"], cache_dir)
    raise UserError(
        f"there are no pretrained weights of {config.get('architecture') or 'this model'}; build "
        "it with pretrained=False, or give a weight file"
    )


def weights_in(path: Path) -> Path:
    """The weight file of a saved folder; a file is itself.

    Raises:
        UserError: neither, or a folder without weights.
    """
    if path.is_dir():
        found = [path / name for name in FILES if (path / name).is_file()]
        if not found:
            raise UserError(f"{str(path)!r} holds no {' or '.join(FILES)}")
        return found[0]
    if not path.is_file():
        raise UserError(f"no weight file at {str(path)!r}")
    return path


def from_hub(
    repository: str,
    revision: str | None = None,
    files: tuple[str, ...] = FILES,
    cache_dir: str | Path | None = None,
) -> Path:
    """One file of a repository on the Hugging Face hub: from the cache, else from the net.

    Raises:
        UserError: the net is away, no such repository, or none of the files in it.
    """
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    def get(file: str, here: bool) -> Path | None:
        try:
            where = hf_hub_download(
                repository, file, revision=revision, cache_dir=cache_dir, local_files_only=here
            )
        except LocalEntryNotFoundError:
            if here:
                return None
            raise
        except EntryNotFoundError:
            return None
        return Path(where)

    for here in (True, False):
        if not here:
            require_net(constants.ENDPOINT, repository)
        try:
            found = next((path for file in files if (path := get(file, here))), None)
        except OSError as error:  # all of the hub's own errors that matter here are such
            raise offline_error(repository, str(error)) from error
        if found:
            return check(found, digest_of_blob(found))
    raise UserError(f"{repository!r} on the hub holds no {' or '.join(files)}")


def from_url(url: str, cache_dir: str | Path | None = None) -> Path:
    """A file at one of timm's addresses, ``...-0a1b2c3d.pth``.

    Raises:
        UserError: the net is away, or the file is not the one its name promises.
    """
    from timm.models._hub import download_cached_file, get_cache_dir

    name = Path(urlparse(url).path).name
    folder = Path(cache_dir or get_cache_dir())
    if not (folder / name).is_file():
        require_net(url, name)
        try:
            download_cached_file(url, cache_dir=str(folder))
        except (OSError, RuntimeError) as error:
            raise offline_error(name, str(error)) from error
    promised = re.search(r"-([0-9a-f]{8,64})\.\w+$", name)
    return check(folder / name, promised.group(1) if promised else "")


def digest_of_blob(path: Path) -> str:
    """The SHA-256 under which the hub's cache stores a large file; empty for others."""
    name = resolve_path(path).name
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else ""


def check(path: Path, digest: str) -> Path:
    """``path``, if its SHA-256 begins with ``digest``.

    Raises:
        UserError: it does not.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest() if digest else ""
    if not found.startswith(digest):
        raise UserError(
            f"{str(path)!r} is damaged (SHA-256 {found[:8]}..., not {digest[:8]}...); delete it "
            "and try again"
        )
    return path


def require_net(url: str, what: str) -> None:
    """Ask once and shortly: downloaders try for half a minute before they give up.

    Raises:
        UserError: no answer. Behind a proxy nothing is asked.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise offline_error(what, "HF_HUB_OFFLINE is set")
    if urllib.request.getproxies():
        return
    parts = urlparse(url)
    port = parts.port or (80 if parts.scheme == "http" else 443)
    try:
        socket.create_connection((parts.hostname or "", port), timeout=WAIT).close()
    except OSError as error:
        raise offline_error(what, f"{parts.hostname}: {error}") from error


def offline_error(what: str, why: str) -> UserError:
    """The one line for weights that cannot be had now."""
    reason = " ".join(why.split())[:160]
    return UserError(
        f"cannot download {what} ({reason}); connect to the internet, or give a weight file"
    )
