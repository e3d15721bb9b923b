import math
import pickle
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data.corpus import picture, saved, truth

from vitrail.data import Augment, Preprocess
from vitrail.data.decode import decode
from vitrail.data.transforms import IMAGENET_MEAN, IMAGENET_STD
from vitrail.errors import UserError

PLAIN = Augment(scale=(1, 1), ratio=(1, 1), flip=0, rand_augment=None, erase=0)


def shown(width: int, height: int) -> Image.Image:
    return Image.fromarray(truth()).resize((width, height), Image.Resampling.BICUBIC)


def test_evaluation_is_resize_centre_crop_and_normalise():
    from torchvision.transforms import v2

    image = shown(90, 60)
    ours = Preprocess(image=36, crop=0.9).transform()(image)
    theirs = v2.Compose(
        [
            v2.Resize(40, v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(36),
            v2.ToImage(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )(image)
    assert ours.shape == (3, 36, 36) and ours.dtype == torch.float32
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


@pytest.mark.parametrize("size", [(90, 60), (60, 90), (8, 300), (5, 5), (1, 1), (64, 64)])
def test_any_picture_becomes_the_models_input(size):
    for chans, image in product((1, 3), (1, 32, 75)):
        pre = Preprocess(image=image, in_chans=chans)
        for transform in (pre.transform(), Augment(erase=1.0).transform(pre)):
            out = transform(shown(*size))
            assert out.shape == (chans, image, image)
            assert out.dtype == torch.float32 and out.isfinite().all(), (chans, image)


def test_grey_averages_the_means():
    pre = Preprocess(image=16, in_chans=1)
    assert pre.mean == (pytest.approx(0.449, abs=1e-4),)
    white = Image.new("RGB", (16, 16), "white")
    assert pre.transform()(white).unique().item() == pytest.approx((1 - 0.449) / 0.226, abs=1e-3)


def test_preprocess_survives_json_and_refuses_what_it_does_not_know():
    pre = Preprocess(image=48, in_chans=1, mean=(0.2,), std=(0.3,), crop=0.8)
    assert Preprocess.from_dict(pre.to_dict()) == pre
    with pytest.raises(UserError, match="no preprocessing key 'size'"):
        Preprocess.from_dict({"image": 3, "size": 4})
    assert pre.describe() == ("grey, short side to 60 (bicubic), centre 48 x 48, mean 0.2, std 0.3")


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"image": 0}, "image size must be 1 or more"),
        ({"image": 16384}, "larger than 8192 px"),  # a MemoryError or Pillow's refusal else
        ({"crop": 0.0}, "crop must be above 0"),
        ({"crop": 1.1}, "crop must be above 0"),
        ({"in_chans": 2}, "1 or 3 channels"),
        ({"interpolation": "best"}, "no interpolation 'best'"),
        ({"mean": (0.1, 0.2)}, "mean has 2 values for 3 channels"),
        ({"std": (0.0, 1.0, 1.0)}, "std must be 0.0001 to 10"),
        ({"std": (58.4, 57.1, 57.4)}, "divided by 255"),
        ({"mean": (10**20, 0.4, 0.4)}, "mean must be -10 to 10"),
        ({"mean": (123.7, 116.3, 103.5)}, "divided by 255"),
    ],
)
def test_preprocess_refuses(values, line):
    with pytest.raises(UserError, match=line):
        Preprocess(**{"image": 32, **values})


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"scale": (0.0, 1.0)}, "scale must be"),
        ({"scale": (0.8, 0.2)}, "scale must be"),
        ({"ratio": (2.0, 1.0)}, "ratio must be"),
        ({"flip": 2}, "flip is a chance"),
        ({"erase": -1}, "erase is a chance"),
        ({"color_jitter": -0.1}, "color_jitter must be"),
        ({"rand_augment": "strong"}, "not of the form m9-n2"),
        ({"rand_augment": "m9-n0"}, "1 to 20 operations"),
        ({"rand_augment": "m31-n2"}, "magnitude 0 to 30"),
        ({"rand_augment": "m9-n100000000"}, "1 to 20 operations"),
        ({"rand_augment": "m²-n2"}, "not of the form m9-n2"),
        ({"ratio": (1e-300, 1.0)}, "ratio must be"),
        ({"color_jitter": 1e300}, "color_jitter must be"),
    ],
)
def test_augment_refuses(values, line):
    with pytest.raises(UserError, match=line):
        Augment(**values)


def test_augmentation_with_everything_off_is_evaluation():
    image = shown(48, 48)
    pre = Preprocess(image=32, crop=1.0)
    difference = PLAIN.transform(pre)(image) - pre.transform()(image)
    # One resize by Pillow, one by torch: the same filter up to the last bit of eight.
    assert difference.abs().max() <= 1.5 / 255 / min(pre.std)


def test_choices_come_from_torchs_generator_alone():
    transform = Augment(color_jitter=0.4, erase=1.0).transform(Preprocess(image=24))
    torch.manual_seed(3)
    first = transform(shown(40, 30))
    np.random.seed(0)
    torch.manual_seed(3)
    assert torch.equal(transform(shown(40, 30)), first)
    torch.manual_seed(4)
    assert not torch.equal(transform(shown(40, 30)), first)


def test_every_choice_has_an_effect():
    base, pre = shown(32, 32), Preprocess(image=32, crop=1.0)
    plain = PLAIN.transform(pre)(base)
    changes = {
        "scale": (0.3, 0.4), "flip": 1.0, "rand_augment": "m20-n4", "color_jitter": 0.9,
        "erase": 1.0,
    }  # fmt: skip
    for name, value in changes.items():
        torch.manual_seed(1)
        augment = Augment(**{**vars(PLAIN), name: value})
        assert not torch.allclose(augment.transform(pre)(base), plain, atol=0.1), name


def test_the_short_side_fits_the_average_crop_and_is_never_enlarged():
    transform = Augment(scale=(0.25, 0.75)).transform(Preprocess(image=64))
    assert transform.short_side == math.ceil(64 / math.sqrt(0.5)) == 91
    assert transform.prepare(shown(400, 300)).shape == (91, 121, 3)
    assert transform.prepare(shown(91, 300)).shape == (300, 91, 3)
    assert transform.prepare(shown(20, 10)).shape == (10, 20, 3)


def test_transforms_pickle():
    for transform in (Preprocess(image=16).transform(), Augment().transform(Preprocess(image=16))):
        copy = pickle.loads(pickle.dumps(transform))
        torch.manual_seed(0)
        out = transform(shown(30, 30))
        torch.manual_seed(0)
        assert torch.equal(copy(shown(30, 30)), out)


def test_small_decoding_changes_little_after_shrinking():
    large = saved(Image.fromarray(truth()).resize((640, 400), Image.Resampling.BICUBIC), "JPEG")
    transform = Augment().transform(Preprocess(image=32))
    full = transform.prepare(decode(large)).astype(float)
    small = transform.prepare(decode(large, short_side=transform.short_side)).astype(float)
    assert full.shape == small.shape
    assert np.abs(full - small).mean() < 1.5


def test_tiny_pictures_from_the_corpus_go_through_too():
    out = Augment().transform(Preprocess(image=40))(decode(picture()))
    assert out.shape == (3, 40, 40)
