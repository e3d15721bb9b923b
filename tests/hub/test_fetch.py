"""Weights from the net, without a net: caches that are filled by hand, and answers that fail."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file

from vitrail.errors import UserError
from vitrail.hub import fetch as door
from vitrail.hub.fetch import fetch, from_hub, from_url

REVISION = "a" * 40


@pytest.fixture
def cache(tmp_path):
    """A hub cache as huggingface_hub leaves it, with one repository in it."""
    repo = tmp_path / "models--owner--name"
    (repo / "blobs").mkdir(parents=True)
    (repo / "snapshots" / REVISION).mkdir(parents=True)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(REVISION)
    save_file({"w": torch.ones(2)}, tmp_path / "w.safetensors")
    digest = hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    blob = repo / "blobs" / digest
    (tmp_path / "w.safetensors").rename(blob)
    (repo / "snapshots" / REVISION / "model.safetensors").symlink_to(blob)
    return tmp_path, blob


@pytest.fixture
def no_net(monkeypatch):
    monkeypatch.setattr(door.urllib.request, "getproxies", dict)

    def refuse(*_, **__):
        raise OSError("Name or service not known")

    monkeypatch.setattr(door.socket, "create_connection", refuse)


def test_the_cache_is_used_without_a_net_and_checked(cache, no_net):
    folder, blob = cache
    found = from_hub("owner/name", cache_dir=folder)
    assert found.name == "model.safetensors" and found.resolve() == blob
    assert fetch({"hf_hub_id": "owner/name@main"}, folder) == found
    blob.write_bytes(b"rotten")
    with pytest.raises(UserError, match="is damaged .* delete it"):
        from_hub("owner/name", cache_dir=folder)


def test_without_a_net_one_line_at_once(tmp_path, no_net, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda s: pytest.fail(f"waits {s} s to try again"))
    with pytest.raises(UserError, match="cannot download owner/other .*connect to the inter") as e:
        from_hub("owner/other", cache_dir=tmp_path)
    with pytest.raises(UserError, match="cannot download w-01234567.pth"):
        from_url("https://somewhere.invalid/w-01234567.pth", tmp_path)
    assert "\n" not in str(e.value)


def test_offline_by_wish(tmp_path, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        from_hub("owner/other", cache_dir=tmp_path)


def test_addresses_carry_the_digest(tmp_path):
    torch.save({"w": torch.ones(2)}, tmp_path / "x.pth")
    digest = hashlib.sha256((tmp_path / "x.pth").read_bytes()).hexdigest()
    good = tmp_path / f"x-{digest[:8]}.pth"
    (tmp_path / "x.pth").rename(good)
    assert fetch({"url": f"https://somewhere.invalid/{good.name}"}, tmp_path) == good
    bad = good.rename(tmp_path / "x-00000000.pth")
    with pytest.raises(UserError, match="is damaged"):
        fetch({"url": f"https://somewhere.invalid/{bad.name}"}, tmp_path)


def test_files_and_folders(tmp_path):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    assert fetch({"file": str(tmp_path)}).name == "pytorch_model.bin"
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert fetch({"file": str(tmp_path)}).name == "model.safetensors"  # preferred
    with pytest.raises(UserError, match="no weight file"):
        fetch({"file": str(tmp_path / "none.pth")})
    with pytest.raises(UserError, match="no pretrained weights of vitrail_x"):
        fetch({"architecture": "vitrail_x"})
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no model\.safetensors or"):
        fetch({"file": str(tmp_path / "empty")})
