"""Weights that carry their card; nothing is unpickled."""

import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch

from vitrail.errors import UserError
from vitrail.tasks import Card, load_weights, read_card, save_weights

CARD = Card(
    model="vit_tiny(patch=8)",
    classes=("chat", "chien", "Löwe"),
    image=96,
    preprocess={"image": 96, "mean": [0.5, 0.5, 0.5]},
    extra={"epoch": 3, "accuracy": 0.1},
)


def test_there_and_back(tmp_path: Path) -> None:
    state = {"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.tensor(1.5)}
    save_weights(tmp_path / "w.safetensors", state, CARD)
    assert read_card(tmp_path / "w.safetensors") == CARD
    again = load_weights(tmp_path / "w.safetensors")
    assert again.keys() == state.keys()
    assert all(torch.equal(again[k], v) and again[k].dtype == v.dtype for k, v in state.items())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["w.safetensors"]


def test_shared_strided_and_part_tensors(tmp_path: Path) -> None:
    base = torch.randn(4, 4)
    state = {"one": base, "two": base, "turned": base.T, "row": base[1], "last": base[:, 3]}
    save_weights(tmp_path / "w.safetensors", state, CARD)
    again = load_weights(tmp_path / "w.safetensors")
    assert all(torch.equal(again[name], value) for name, value in state.items())


def test_the_file_is_as_readable_as_others(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    save_weights(tmp_path / "w.safetensors", {"a": torch.zeros(1)}, CARD)
    assert (tmp_path / "w.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_card_of_a_later_version_is_read() -> None:
    text = CARD.to_json()[:-1] + ', "aura": "green"}'
    assert Card.from_json(text) == CARD


def test_what_is_not_a_weights_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no weights file"):
        read_card(tmp_path / "absent.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(UserError, match="cannot read .* as safetensors"):
        load_weights(tmp_path / "text.safetensors")
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "bare.safetensors")
    with pytest.raises(UserError, match="no Vitrail card"):
        read_card(tmp_path / "bare.safetensors")


def test_foreign_files(tmp_path: Path) -> None:
    state = {"w": torch.randn(2)}
    torch.save({"model": state, "epoch": 3}, tmp_path / "nested.pth")
    assert torch.equal(load_weights(tmp_path / "nested.pth")["w"], state["w"])
    torch.save(state, tmp_path / "flat.pt")
    assert torch.equal(load_weights(tmp_path / "flat.pt")["w"], state["w"])
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(UserError, match="no named tensors"):
        load_weights(tmp_path / "empty.pth")


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_code_in_a_file_is_never_run(tmp_path: Path) -> None:
    sprung = tmp_path / "sprung"
    torch.save({"w": torch.zeros(1), "trap": Trap(sprung)}, tmp_path / "bad.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Trap(sprung)))
    for name in ("bad.pth", "raw.pth"):
        with pytest.raises(UserError, match="Vitrail runs no code from files"):
            load_weights(tmp_path / name)
    assert not sprung.exists()


def test_a_broken_foreign_file(tmp_path: Path) -> None:
    (tmp_path / "empty.pth").write_bytes(b"")
    with zipfile.ZipFile(tmp_path / "zip.pth", "w") as archive:
        archive.writestr("x", "y")
    for name in ("empty.pth", "zip.pth"):
        with pytest.raises(UserError, match="cannot read"):
            load_weights(tmp_path / name)
