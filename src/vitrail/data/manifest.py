"""The manifest: which images a run was made from, written down, with a digest.

JSON; the digest is the sha256 of everything else in it, in a canonical form, so two runs with
one digest saw the same images, labels and parts.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.data.dataset import ImageDataset
from vitrail.data.items import Item
from vitrail.errors import UserError, printable
from vitrail.schema import convert, read_json

FORMAT = "vitrail-manifest-1"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest as read: ``parts`` are items by name (train, val, ...), without sizes."""

    source: str
    classes: tuple[str, ...]
    parts: dict[str, tuple[Item, ...]]
    facts: dict[str, Any]
    digest: str


@dataclass(frozen=True, kw_only=True)
class ManifestFile:
    """The file as it stands; ``whole`` is a digest of ``source`` too, absent in older files."""

    format: str
    digest: str
    source: str
    classes: list[str]
    parts: dict[str, list[Any]]
    facts: dict[str, Any]
    whole: str | None = None


def manifest_digest(
    classes: Sequence[str], parts: Mapping[str, Iterable[Item]], **facts: Any
) -> str:
    """sha256 of classes, parts (key, label, content) and facts; not of where the images lie."""
    return _digest(_body(classes, parts, facts))


def write_manifest(
    path: str | Path, dataset: ImageDataset, parts: Mapping[str, Iterable[Item]], **facts: Any
) -> str:
    """Write the manifest (whole or not at all) and return its digest.

    ``facts`` are anything JSON holds: share, seed, validation share.
    """
    body = _body(dataset.classes, parts, facts)
    digest = _digest(body)
    whole = _digest({"source": dataset.name, **body})
    content = {"format": FORMAT, "digest": digest, "whole": whole, "source": dataset.name, **body}
    path = Path(path)
    draft = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    draft.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    draft.replace(path)
    return digest


def read_manifest(path: str | Path) -> Manifest:
    """Read a manifest and verify its digest.

    Raises:
        UserError: not a manifest, or changed since it was written.
    """
    named = repr(str(path))
    try:
        value = read_json(path, dict[str, Any])
        if "format" in value and value["format"] != FORMAT:
            shown = printable(value["format"])[:60]
            raise UserError(f"it has format {shown}; this Vitrail reads {FORMAT}")
        content: ManifestFile = convert(ManifestFile, value, named, extra_keys=True)
        _check_rows(content, named)
    except UserError as error:
        raise UserError(f"{path} is not a manifest that can be read ({error})") from error
    body = {"classes": content.classes, "parts": content.parts, "facts": content.facts}
    whole = content.whole is None or content.whole == _digest({"source": content.source, **body})
    if _digest(body) != content.digest or not whole:
        raise UserError(f"{path} was changed after it was written: its digest does not fit")
    parts = {
        part: tuple(Item(key, label, split, picture) for key, label, split, picture in rows)
        for part, rows in content.parts.items()
    }
    return Manifest(
        source=content.source,
        classes=tuple(content.classes),
        parts=parts,
        facts=content.facts,
        digest=content.digest,
    )


def _check_rows(content: ManifestFile, where: str) -> None:
    """Every image has a key, a label that is a class, a part and a digest."""
    count = len(content.classes)
    for rows in content.parts.values():
        for row in rows:
            good = type(row) is list and len(row) == 4 and type(row[1]) is int
            if not good or not (isinstance(row[0], str) and 0 <= row[1] < count):
                raise UserError(f"{where} lists a picture that is none: {str(row)[:80]}")
            if not all(value is None or isinstance(value, str) for value in row[2:]):
                raise UserError(f"{where} lists a picture that is none: {str(row)[:80]}")


def _body(
    classes: Sequence[str], parts: Mapping[str, Iterable[Item]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    rows = {p: [[i.key, i.label, i.split, i.digest] for i in items] for p, items in parts.items()}
    return {"classes": list(classes), "parts": rows, "facts": dict(facts)}


def _digest(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()
