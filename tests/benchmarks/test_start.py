"""What released weights give: each training is a command, whose time is the system's."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import vitrail
from benchmarks import contract, start
from vitrail.errors import UserError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes in three parts, told apart by colour."""
    for part, count in (("train", 8), ("val", 2), ("test", 3)):
        for name, colour in (("red", (200, 30, 20)), ("blue", (20, 40, 210))):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                picture = Image.new("RGB", (40, 40), (colour[0], colour[1], colour[2] - 5 * i))
                picture.putpixel((i, len(part)), (0, 0, 0))
                picture.save(folder / f"{i}.png")
    return tmp_path / "photos"


def test_a_head_is_trained_once_and_asked_on_the_test_part(photos: Path, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    weights = tmp_path / "weights"
    weights.mkdir()
    released = timm.create_model("mobilevit_xxs")
    save_file(released.state_dict(), weights / "mobilevit_xxs.cvnets_in1k.safetensors")
    options = start.Options(
        data=(photos,), weights_folder=weights, model="timm:mobilevit_xxs", seeds=(1,),
        ways=("head",), image={"photos": 64},
        work=tmp_path / "work", out=tmp_path,
    )  # fmt: skip
    found = json.loads(start.main(options).read_text())
    assert contract.faults(found) == []
    (head,) = found["rows"]
    assert head["arm"] == "head" and head["processor_seconds"][0] > 0.1
    assert head["part"] == "test" and head["tested"] == 6 and len(head["of_seeds"]) == 1
    run = vitrail.load(tmp_path / "work" / "photos-head-1")
    assert run.preprocess.image == 64
    before = [p.stat().st_mtime_ns for p in sorted((tmp_path / "work").rglob("*.safetensors"))]
    again = json.loads(start.main(options).read_text())
    assert before == [p.stat().st_mtime_ns for p in sorted((tmp_path / "work").rglob("*.safet*"))]
    assert [row["of_seeds"] for row in again["rows"]] == [r["of_seeds"] for r in found["rows"]]


def test_each_way_is_a_command(tmp_path: Path) -> None:
    options = start.Options(data=(tmp_path / "a.zip",), weights_folder=tmp_path, image={"a": 99})
    said = {
        way: " ".join(
            start.Training(data=options.data[0], way=way, seed=3, options=options).arguments()
        )
        for way in options.ways
    }
    assert all(f"train {tmp_path / 'a.zip'} --model timm:" in words for words in said.values())
    assert "--tune head --image 99 --seed 3" in said["head"]
    assert "--tune" not in said["fine-tuned"] and "--image" not in said["fine-tuned"]
    assert "--weights none --set seconds=1200" in said["from scratch"]


def test_no_pictures_is_one_line(tmp_path: Path) -> None:
    options = start.Options(data=(tmp_path / "gone",), weights_folder=tmp_path)
    with pytest.raises(UserError, match="no pictures at"):
        start.main(options)
