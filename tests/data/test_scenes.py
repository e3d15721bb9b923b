import hashlib

import numpy as np
import pytest

from vitrail.data import open_dataset
from vitrail.data.scenes import SHAPES, Scenes
from vitrail.errors import UserError


@pytest.mark.parametrize("size", [16, 33, 64])
@pytest.mark.parametrize("difficulty", [0, 0.5, 1.0])
def test_label_boxes_and_masks_tell_one_story(size, difficulty):
    scenes = Scenes(size=size, difficulty=difficulty, classes=8)
    for index in range(16):
        scene = scenes.scene("train", index)
        assert scene.image.shape == (size, size, 3) and scene.image.dtype == np.uint8
        assert scene.instances.max() == len(scene.boxes) == len(scene.labels)
        for number, (x0, y0, x1, y1) in enumerate(scene.boxes, start=1):
            inside = scene.instances == number
            rows, columns = np.nonzero(inside)
            assert (columns.min(), rows.min()) == (x0, y0)
            assert (columns.max() + 1, rows.max() + 1) == (x1, y1)
            assert set(scene.mask[inside]) == {scene.labels[number - 1] + 1}
        assert scene.label == index % 8 == scene.labels[-1]
        sides = (scene.boxes[:, 2:] - scene.boxes[:, :2]).max(1)
        assert sides.argmax() == len(sides) - 1 or sides[-1] >= 0.9 * sides.max()


def test_a_scene_is_a_function_of_seed_split_and_number():
    scene = Scenes().scene("train", 5)
    np.testing.assert_array_equal(scene.image, Scenes(count=60).scene("train", 5).image)
    others = [
        Scenes(seed=1).scene("train", 5),
        Scenes().scene("val", 5),
        Scenes().scene("train", 11),
    ]
    assert all((other.image != scene.image).any() for other in others)


def test_masks_of_a_known_scene_have_not_changed():
    """Shapes, places and labels are pinned; textures may round otherwise on other machines."""
    scene = Scenes(size=32, classes=8, difficulty=0.5).scene("train", 6)
    assert list(SHAPES)[scene.label] == "crescent"
    assert hashlib.sha256(scene.instances.tobytes()).hexdigest()[:16] == "7b346f6ef56f5599"


def test_scenes_as_a_source():
    pictures = open_dataset("scenes(size=32, count=30, classes=3)")
    assert pictures.name == "scenes(size=32, count=30, classes=3)"
    assert pictures.classes == ("disc", "square", "triangle")
    assert [pictures.counts(split) for split in ("train", "val", "test")] == [
        (10, 10, 10), (2, 2, 2), (2, 2, 2),
    ]  # fmt: skip
    item = pictures.split("val")[1]
    scene = Scenes(size=32, count=30, classes=3).scene("val", 1)
    np.testing.assert_array_equal(np.asarray(pictures.read(item)), scene.image)
    assert open_dataset("scenes").name == "scenes"
    digests = {open_dataset(f"scenes(count=6, seed={s})").items[0].digest for s in range(3)}
    assert len(digests) == 3


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("scenes(sizes=3)", "scenes has no option 'sizes'; it has size, count"),
        ("scenes(size=3)", "16 pixels or more"),
        ("scenes(size=99999)", "at most 4096 pixels"),
        ("scenes(count=99999999999)", "at most 10,000,000"),
        ("scenes(size='big')", "size must be a whole number, not 'big'"),
        ("scenes(count=1)", "count must be 6"),
        ("scenes(classes=99)", "2 to 8 classes"),
        ("scenes(difficulty=2)", "from 0 to 1"),
        ("scenes(", "is not of the form"),
    ],
)
def test_scenes_refuse(text, line):
    with pytest.raises(UserError, match=line):
        open_dataset(text)
