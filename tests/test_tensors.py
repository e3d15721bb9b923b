"""Named tensors in a file: the same bytes for the same content, and no flipped bit unseen."""

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from vitrail.errors import UserError
from vitrail.tensors import check_file, file_digest, load_tensors, read_header, save_tensors

TENSORS = {
    "a": torch.arange(6, dtype=torch.float32).reshape(2, 3),
    "half": torch.ones(3, dtype=torch.bfloat16),
    "yes": torch.tensor([True, False]),
    "scalar": torch.tensor(1.5, dtype=torch.float64),
    "none": torch.zeros(0, 4),
    "turned": torch.arange(6).reshape(2, 3).T,
    "é": torch.tensor([1], dtype=torch.uint8),
}
TEXTS = {"card": '{"classes": ["chat", "Löwe"]}', "format": "pt"}


def test_there_and_back_and_as_others_read_it(tmp_path: Path) -> None:
    save_tensors(tmp_path / "w.safetensors", TENSORS, TEXTS)
    tensors, texts = load_tensors(tmp_path / "w.safetensors")
    theirs = load_file(tmp_path / "w.safetensors")
    assert texts == TEXTS and tensors.keys() == theirs.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor) and tensors[name].dtype == tensor.dtype
        assert torch.equal(theirs[name], tensor)
    with safe_open(tmp_path / "w.safetensors", framework="pt") as file:
        assert file.metadata()["card"] == TEXTS["card"]
    header = read_header(tmp_path / "w.safetensors")
    assert header.shapes["a"] == (2, 3) and header.texts == TEXTS


def test_the_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    save_tensors(tmp_path / "one", TENSORS, TEXTS)
    backwards = dict(reversed(TENSORS.items())), dict(reversed(TEXTS.items()))
    save_tensors(tmp_path / "two", *backwards)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_no_flipped_bit_is_read_as_something_else(tmp_path: Path) -> None:
    save_tensors(tmp_path / "w", TENSORS, TEXTS)
    whole = (tmp_path / "w").read_bytes()
    before = load_tensors(tmp_path / "w")
    for place in range(len(whole)):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        (tmp_path / "w").write_bytes(changed)
        try:
            tensors, texts = load_tensors(tmp_path / "w")
        except UserError:
            continue
        texts = {key: text for key, text in texts.items() if key in TEXTS}
        same = all(torch.equal(tensors[n], t) for n, t in before[0].items())
        assert same and texts == TEXTS, place  # only the digest's own name was hit, or white space


def test_files_without_a_digest_are_read_as_they_are(tmp_path: Path) -> None:
    save_file({"a": TENSORS["a"]}, tmp_path / "w.safetensors", metadata={"format": "pt"})
    tensors, texts = load_tensors(tmp_path / "w.safetensors")
    assert torch.equal(tensors["a"], TENSORS["a"]) and texts == {"format": "pt"}


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\xff" * 16, (8).to_bytes(8, "little") + b"{}"]
)
def test_what_is_no_such_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(content)
    for read in (load_tensors, read_header):
        with pytest.raises(UserError, match="cannot read .* as safetensors"):
            read(tmp_path / "w")
    check_file(tmp_path / "w", file_digest(tmp_path / "w"))
    with pytest.raises(UserError, match="is damaged"):
        check_file(tmp_path / "w", "0" * 64)
