import numpy as np

from vitrail.data import open_dataset


def test_the_sample_is_there_at_once_and_balanced():
    pictures = open_dataset("fashion")
    assert len(pictures.classes) == 10 and pictures.classes[0] == "T-shirt/top"
    assert pictures.counts("train") == (160,) * 10
    assert pictures.counts("val") == (40,) * 10
    assert pictures.counts("test") == (50,) * 10
    assert pictures.problems == ()
    assert len({item.digest for item in pictures.items}) == 2500
    image = pictures.read(pictures.items[0])
    assert image.mode == "RGB" and image.size == (28, 28) == pictures.items[0].size


def test_it_is_the_real_thing():
    """Mean and deviation as measured when the cut was made (shared/data)."""
    pictures = open_dataset("fashion")
    train = [i for i in pictures.items if i.key.startswith("train")]
    pixels = np.stack([np.asarray(pictures.read(item))[:, :, 0] for item in train]) / 255
    assert abs(pixels.mean() - 0.2864) < 5e-4 and abs(pixels.std() - 0.3544) < 5e-4
