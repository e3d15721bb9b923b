import json
from dataclasses import replace

import pytest

from vitrail.data import manifest_digest, open_dataset, read_manifest, write_manifest
from vitrail.data.items import Item
from vitrail.errors import UserError

PARTS = {
    "train": (Item("a/ü.png", 0, "train", "0123"), Item("b/1.png", 1, "train", "4567")),
    "val": (Item("b/2.png", 1, "val", "89ab"),),
}
CLASSES = ("a", "b")


@pytest.fixture(scope="module")
def pictures():
    return replace(open_dataset("fashion"), classes=CLASSES)


def test_round_trip(tmp_path, pictures):
    path = tmp_path / "manifest.json"
    digest = write_manifest(path, pictures, PARTS, share=0.1, seed=3)
    read = read_manifest(path)
    assert (read.parts, read.classes, read.digest) == (PARTS, CLASSES, digest)
    assert (read.source, read.facts) == ("fashion", {"share": 0.1, "seed": 3})
    assert digest == manifest_digest(CLASSES, PARTS, share=0.1, seed=3)
    assert len(digest) == 64
    assert list(tmp_path.iterdir()) == [path]  # no draft left behind


@pytest.mark.parametrize(
    "change",
    [
        {"key": "a/other.png"}, {"label": 1}, {"digest": "0124"}, {"split": "test"},
    ],
)  # fmt: skip
def test_any_change_changes_the_digest(change):
    first, *rest = PARTS["train"]
    changed = PARTS | {"train": (replace(first, **change), *rest)}
    assert manifest_digest(CLASSES, changed) != manifest_digest(CLASSES, PARTS)


def test_classes_facts_and_order_count_and_sizes_do_not():
    digest = manifest_digest(CLASSES, PARTS, seed=0)
    assert manifest_digest(("b", "a"), PARTS, seed=0) != digest
    assert manifest_digest(CLASSES, PARTS, seed=1) != digest
    turned = PARTS | {"train": PARTS["train"][::-1]}
    assert manifest_digest(CLASSES, turned, seed=0) != digest
    sized = PARTS | {"val": tuple(replace(item, size=(3, 4)) for item in PARTS["val"])}
    assert manifest_digest(CLASSES, sized, seed=0) == digest


def test_a_changed_file_is_refused(tmp_path, pictures):
    path = tmp_path / "manifest.json"
    write_manifest(path, pictures, PARTS)
    content = json.loads(path.read_text("utf-8"))
    content["parts"]["train"][0][1] = 1
    path.write_text(json.dumps(content), "utf-8")
    with pytest.raises(UserError, match="was changed after it was written"):
        read_manifest(path)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format": "vitrail-manifest-9"}', "\udcff"])
def test_what_is_no_manifest_is_refused(tmp_path, text):
    path = tmp_path / "manifest.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"is not a manifest|has format"):
        read_manifest(path)
    with pytest.raises(UserError, match="is not a manifest"):
        read_manifest(tmp_path / "gone.json")
