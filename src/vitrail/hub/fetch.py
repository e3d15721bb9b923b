"""Weights from the net, through huggingface_hub and timm's addresses: once, and checked.

What the cache holds is used without a question to the net. The hub stores a large file under its
SHA-256, timm's older addresses carry the first eight digits of it: a file that differs is refused.
"""

import hashlib
import re
import socket
import threading
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from vitrail.errors import UserError
from vitrail.files import resolve_path

FILES = ("model.safetensors", "pytorch_model.bin")
"""What a repository or a saved folder calls its weights; the first that is there is taken."""
WAIT = 3.0
"""Seconds to wait for a connection before saying that the net is away."""
ANSWER = 6.0
"""Seconds in which the hub must say whether it has a file; together under ten."""
REPOSITORY = re.compile(r"^(?:hf-hub:)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?$")
"""``owner/name``, with or without ``@revision``."""


class NotAvailable(UserError):
    """Weights that are not there, or cannot be had now: a training may begin without them."""


def fetch(config: Mapping[str, Any], cache_dir: str | Path | None = None) -> Path:
    """The weight file that one of timm's ``pretrained_cfg`` names.

    Raises:
        UserError: it names none, the net is away, or the file is damaged.
    """
    if config.get("file"):
        return weights_in(Path(config["file"]))
    if config.get("hf_hub_id"):
        return from_hub(*repository_of(config), cache_dir)
    if config.get("url"):
        return from_url(config["url"], cache_dir)
    raise NotAvailable(
        f"there are no pretrained weights of {config.get('architecture') or 'this model'}; build "
        "it with pretrained=False, or give a weight file"
    )


def find_cached(config: Mapping[str, Any], cache_dir: str | Path | None = None) -> Path | None:
    """The file that :func:`fetch` would give, if no network is needed for it."""
    if config.get("hf_hub_id"):
        return from_cache(*repository_of(config), cache_dir)
    if config.get("url"):
        path = cached_url(config["url"], cache_dir)
        return check_url(path) if path.is_file() else None
    return None


def repository_of(config: Mapping[str, Any]) -> tuple[str, str | None, tuple[str, ...]]:
    """Repository, revision and files that one of timm's ``pretrained_cfg`` names."""
    name, _, revision = config["hf_hub_id"].partition("@")
    only = config.get("hf_hub_filename")
    return name, revision or None, (only,) if only else FILES


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
        NotAvailable: the net is away, no such repository or revision, or none of the files in it.
        UserError: the file is damaged.
    """
    cached = from_cache(repository, revision, files, cache_dir)
    return cached or download(repository, revision, files, cache_dir)


def from_cache(
    repository: str,
    revision: str | None = None,
    files: tuple[str, ...] = FILES,
    cache_dir: str | Path | None = None,
) -> Path | None:
    """The first of the files that the hub's cache holds.

    Raises:
        UserError: it is damaged.
    """
    from huggingface_hub import try_to_load_from_cache

    for file in files:
        found = try_to_load_from_cache(repository, file, cache_dir=cache_dir, revision=revision)
        if isinstance(found, str) and Path(found).is_file():
            return check(Path(found), digest_of_blob(Path(found)))
    return None


def download(
    repository: str,
    revision: str | None = None,
    files: tuple[str, ...] = FILES,
    cache_dir: str | Path | None = None,
) -> Path:
    """The first of the files that the hub has, put into the cache.

    Whether there is one is known within ten seconds; the download takes as long as it takes.

    Raises:
        NotAvailable: the net is away, no such repository or revision, or none of the files in it.
        UserError: what came is damaged.
    """
    from huggingface_hub import constants, hf_hub_download

    require_net(constants.ENDPOINT, repository)
    try:
        file = within(ANSWER, lambda: ask_hub(repository, revision, files))
        if file is None:
            raise NotAvailable(f"{repository!r} on the hub holds no {' or '.join(files)}")
        where = Path(hf_hub_download(repository, file, revision=revision, cache_dir=cache_dir))
    except UserError:
        raise
    except Exception as error:  # the hub's client has errors of two HTTP libraries, by version
        raise hub_error(repository, revision, error) from error
    return check(where, digest_of_blob(where))


def read_companion(
    path: Path, repository: str, commit: str, name: str, *, online: bool
) -> str | None:
    """A small text beside a file of the hub's cache, of the same commit.

    Returns:
        Empty where the repository has none; None where that cannot be found out now.
    """
    from huggingface_hub import hf_hub_download, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    beside = path.parent / name
    if not beside.is_file():
        known = try_to_load_from_cache(repository, name, revision=commit)
        if known is not None and not isinstance(known, str):
            return ""  # the hub was asked before, and has none
        if not online:
            return None
        try:
            within(ANSWER, lambda: hf_hub_download(repository, name, revision=commit))
        except EntryNotFoundError:
            return ""
        except Exception:  # the hub's client has errors of two HTTP libraries, by version
            return None
    return beside.read_text(encoding="utf-8", errors="replace")


def ask_hub(repository: str, revision: str | None, files: tuple[str, ...]) -> str | None:
    """The first of the files that the hub has."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    for file in files:
        try:
            get_hf_file_metadata(hf_hub_url(repository, file, revision=revision), timeout=ANSWER)
        except EntryNotFoundError:
            continue
        return file
    return None


def within(seconds: float, question: Callable[[], Any]) -> Any:
    """The answer to a question, if it comes in time.

    Raises:
        TimeoutError: it does not. The question is then left behind in its thread.
    """
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["answer"] = question()
        except BaseException as error:
            outcome["error"] = error  # raised below, where somebody hears it

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"no answer within {seconds:g} s")
    if "error" in outcome:
        raise outcome["error"]
    return outcome["answer"]


def from_url(url: str, cache_dir: str | Path | None = None) -> Path:
    """A file at one of timm's addresses, ``...-0a1b2c3d.pth``.

    Raises:
        UserError: the net is away, or the file is not the one its name promises.
    """
    from timm.models._hub import download_cached_file

    path = cached_url(url, cache_dir)
    if not path.is_file():
        require_net(url, path.name)
        try:
            download_cached_file(url, cache_dir=str(path.parent))
        except (OSError, RuntimeError) as error:
            raise offline_error(path.name, str(error)) from error
    return check_url(path)


def cached_url(url: str, cache_dir: str | Path | None = None) -> Path:
    """Where a file from one of timm's addresses lies once it was downloaded."""
    from timm.models._hub import get_cache_dir

    return Path(cache_dir or get_cache_dir()) / Path(urlparse(url).path).name


def check_url(path: Path) -> Path:
    """A file from one of timm's addresses, if it is the one that its name promises.

    Raises:
        UserError: it is not.
    """
    promised = re.search(r"-([0-9a-f]{8,64})\.\w+$", path.name)
    return check(path, promised.group(1) if promised else "")


def revision_of(path: Path) -> str:
    """The commit that a file of the hub's cache is of; empty for other files."""
    found = path.parent.name
    return found if path.parent.parent.name == "snapshots" else ""


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


def offline_error(what: str, why: str) -> NotAvailable:
    """The one line for weights that cannot be had now."""
    reason = " ".join(why.split())[:160]
    return NotAvailable(
        f"cannot download {what} ({reason}); connect to the internet, or give a weight file or a "
        "folder of weights (--weights-folder)"
    )


def hub_error(repository: str, revision: str | None, error: Exception) -> NotAvailable:
    """What the hub's client says went wrong, in one line."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError
    from huggingface_hub.errors import RevisionNotFoundError as NoRevisionError

    if isinstance(error, NoRevisionError):
        return NotAvailable(f"{repository!r} on the hub has no revision {revision!r}")
    if isinstance(error, GatedRepoError):
        return NotAvailable(
            f"{repository!r} on the hub asks for consent: accept its terms there, and log in with "
            "'hf auth login'"
        )
    if isinstance(error, RepositoryNotFoundError):
        return NotAvailable(
            f"no repository {repository!r} on the hub; look at the name, or log in with 'hf auth "
            "login' if it is private"
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return offline_error(repository, f"{type(error).__name__}: {lines[0]}" if lines else str(error))
