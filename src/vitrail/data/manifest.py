"""The manifest: which pictures a run was made from, written down, with a digest.

JSON; the digest is the sha256 of everything else in it, in a canonical form, so two runs with
one digest saw the same pictures, labels and parts.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.data.items import Item
from vitrail.data.pictures import Pictures
from vitrail.errors import UserError

FORMAT = "vitrail-manifest-1"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A manifest as read: ``parts`` are items by name (train, val, ...), without sizes."""

    source: str
    classes: tuple[str, ...]
    parts: dict[str, tuple[Item, ...]]
    facts: dict[str, Any]
    digest: str


def manifest_digest(
    classes: Sequence[str], parts: Mapping[str, Iterable[Item]], **facts: Any
) -> str:
    """sha256 of classes, parts (key, label, content) and facts; not of where the pictures lie."""
    return _digest(_body(classes, parts, facts))


def write_manifest(
    path: str | Path, pictures: Pictures, parts: Mapping[str, Iterable[Item]], **facts: Any
) -> str:
    """Write the manifest (whole or not at all) and return its digest.

    ``facts`` are anything JSON holds: share, seed, validation share.
    """
    body = _body(pictures.classes, parts, facts)
    digest = _digest(body)
    content = {"format": FORMAT, "digest": digest, "source": pictures.name, **body}
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
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise UserError(f"{path} has format {content['format']!r}; this Vitrail reads {FORMAT}")
        body = {name: content[name] for name in ("classes", "parts", "facts")}
        digest, source = content["digest"], content["source"]
    except (OSError, json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a manifest that can be read ({error})") from error
    if _digest(body) != digest:
        raise UserError(f"{path} was changed after it was written: its digest does not fit")
    parts = {
        part: tuple(Item(key, label, split, picture) for key, label, split, picture in rows)
        for part, rows in body["parts"].items()
    }
    return Manifest(
        source=source,
        classes=tuple(body["classes"]),
        parts=parts,
        facts=body["facts"],
        digest=digest,
    )


def _body(
    classes: Sequence[str], parts: Mapping[str, Iterable[Item]], facts: Mapping[str, Any]
) -> dict[str, Any]:
    rows = {p: [[i.key, i.label, i.split, i.digest] for i in items] for p, items in parts.items()}
    return {"classes": list(classes), "parts": rows, "facts": dict(facts)}


def _digest(body: Mapping[str, Any]) -> str:
    text = json.dumps(body, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
