"""Pictures with known objects: made-up scenes, folders of masks, boxes; what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from vitrail.attribution.samples import gather, open_truth, resize_mask
from vitrail.data import History, Manifest, Preprocess, Scenes
from vitrail.data.transforms import crop_thin
from vitrail.errors import UserError

PLAIN = Preprocess(image=32, crop=1.0)


class Always(nn.Module):
    """Gives one class to every picture."""

    def __init__(self, label: int, classes: int = 3) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.eye(classes)[label])

    def forward(self, images: Tensor) -> Tensor:
        return self.logits.expand(len(images), -1)


def test_scenes_know_the_shape_that_names_them() -> None:
    source = "scenes(size=32, count=9, classes=3)"
    pictures, mask_of = open_truth(source)
    items = pictures.split("test")
    found = gather(Always(1), pictures, items, mask_of, PLAIN, count=9)
    assert found.target.tolist() == [1] * len(found) and len(found) == 1 and found.seen == 3
    assert found.masks is not None and found.masks.shape == (1, 32, 32)
    scene = Scenes.parse(source).scene("test", int(found.keys[0].split("/")[1]))
    labels = scene.labels[scene.instances[found.masks[0].numpy()] - 1]
    assert set(labels) == {1} and 0.02 < float(found.masks.float().mean()) < 0.5


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures of 40 x 20: red in the left or right half, which the mask covers."""
    for i in range(6):
        label = "left" if i % 2 else "right"
        half = np.s_[:, :20] if i % 2 else np.s_[:, 20:]
        pixels = np.zeros((20, 40, 3), np.uint8)
        pixels[..., 2] = 20 * i
        pixels[half] = (255, 0, i)
        mask = np.zeros((20, 40), np.uint8)
        mask[half] = 7
        for kind, array in (("images", pixels), ("masks", mask)):
            path = tmp_path / "d" / kind / label / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
    return tmp_path / "d"


def test_masks_of_a_folder_lie_where_the_model_sees_the_picture(folder: Path) -> None:
    pictures, mask_of = open_truth(str(folder))
    assert pictures.classes == ("left", "right")
    preprocess = Preprocess(image=10, crop=1.0, mean=(0, 0, 0), std=(1, 1, 1))
    found = gather(Always(0, 2), pictures, pictures.items, mask_of, preprocess, count=9)
    assert len(found) == 3 and found.masks is not None
    assert torch.equal(found.masks, found.images[:, 0] > 0.5)
    assert found.masks[:, :, :5].all() and not found.masks[:, :, 5:].any()


def test_boxes_stand_in_for_masks(folder: Path) -> None:
    for mask in (folder / "masks" / "left").iterdir():
        mask.unlink()
    keys = [f"left/{i}.png" for i in (1, 3, 5)]
    lines = ["path,x0,y0,x1,y1", *(f"{k},0,0,10,20" for k in keys), f"{keys[0]},10,0,20,20"]
    (folder / "boxes.csv").write_text("\n".join(lines))
    pictures, mask_of = open_truth(str(folder))
    by_key = {item.key: item for item in pictures.items}
    areas = [np.asarray(mask_of(by_key[k], (40, 20))).astype(bool).sum() for k in keys]
    assert areas == [400, 200, 200]


def test_pictures_without_an_object_in_sight_are_left_out(folder: Path) -> None:
    (folder / "masks" / "left" / "1.png").unlink()
    pictures, mask_of = open_truth(str(folder))
    found = gather(Always(0, 2), pictures, pictures.items, mask_of, PLAIN, count=9)
    assert sorted(found.keys) == ["left/3.png", "left/5.png"]


def test_without_masks_there_are_none(folder: Path) -> None:
    pictures, mask_of = open_truth(str(folder / "images"))
    found = gather(Always(1, 2), pictures, pictures.items, mask_of, PLAIN, count=2)
    assert found.masks is None and len(found) == 2 and len(found.first(1)) == 1


def test_the_choice_is_drawn_by_the_seed(folder: Path) -> None:
    pictures, mask_of = open_truth(str(folder))
    keys = {
        seed: gather(
            Always(0, 2), pictures, pictures.items, mask_of, PLAIN, count=3, seed=seed
        ).keys
        for seed in range(4)
    }
    assert len(set(keys.values())) > 1
    assert keys[0] == gather(Always(0, 2), pictures, pictures.items, mask_of, PLAIN, count=3).keys


def test_a_mask_keeps_its_shape_through_the_crop() -> None:
    mask = Image.new("L", (80, 40))
    mask.paste(255, (30, 10, 50, 30))
    found = resize_mask(mask, Preprocess(image=20, crop=1.0))
    assert found.shape == (20, 20) and found[5:15, 5:15].all() and int(found.sum()) == 100


@pytest.mark.parametrize(
    ("boxes", "said"),
    [
        ("path,x0,y0,x1", "lacks y1"),
        ("path,x0,y0,x1,y1\na,1,2,x,4", "line 2: x0, y0, x1, y1 must be numbers"),
        ("path,x0,y0,x1,y1\na,1,2,1,4", "line 2: the box 1,2,1,4 is empty"),
    ],
)
def test_bad_boxes_are_refused(folder: Path, boxes: str, said: str) -> None:
    (folder / "boxes.csv").write_text(boxes)
    with pytest.raises(UserError, match=said):
        open_truth(str(folder))


def test_a_mask_of_another_size_is_refused(folder: Path) -> None:
    Image.new("L", (9, 9), 255).save(folder / "masks" / "left" / "1.png")
    pictures, mask_of = open_truth(str(folder))
    with pytest.raises(UserError, match=r"9 x 9 px, its picture 40 x 20"):
        gather(Always(0, 2), pictures, pictures.items, mask_of, PLAIN, count=9)


def test_a_model_that_is_never_right_cannot_be_scored(folder: Path) -> None:
    pictures, mask_of = open_truth(str(folder))
    lefts = [item for item in pictures.items if item.label == 0]
    with pytest.raises(UserError, match="answers none rightly"):
        gather(Always(1, 2), pictures, lefts, mask_of, PLAIN, count=9)


@pytest.mark.parametrize("row", ["left/1.png,inf,0,1,1", "left/1.png,nan,0,1,1", "left/1.png,0"])
def test_boxes_that_are_no_numbers(folder: Path, row: str) -> None:
    (folder / "boxes.csv").write_text(f"path,x0,y0,x1,y1\n{row}\n")
    with pytest.raises(UserError, match="line 2: x0, y0, x1, y1 must be numbers"):
        open_truth(str(folder))


def test_a_damaged_mask_is_one_line(folder: Path) -> None:
    pictures, mask_of = open_truth(str(folder))
    item = pictures.items[0]
    path = folder / "masks" / item.key
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match="cannot read the mask") as caught:
        mask_of(item, (40, 20))
    assert "\n" not in str(caught.value)


def test_thin_pictures_and_masks_are_cut_before_they_are_enlarged() -> None:
    thin = Image.new("L", (3, 4000), 255)
    assert resize_mask(thin, PLAIN).all()
    assert crop_thin(thin).size == (3, 150) and crop_thin(Image.new("L", (7, 3))).size == (7, 3)


def test_scoring_holds_what_the_run_validated_on(folder: Path) -> None:
    pictures, _ = open_truth(str(folder), val=0.4, seed=5)
    parts = {name: pictures.split(name) for name in ("train", "val")}
    run = Manifest(source="", classes=pictures.classes, parts=parts, facts={}, digest="")
    again, _ = open_truth(str(folder), history=History.of("r", [run]))
    assert again.split("val") == pictures.split("val")
