import inspect
import pickle

import numpy as np
import pytest
from tests.data.corpus import write
from torchvision import datasets

from vitrail.data import open_dataset
from vitrail.data.torchvision_sets import SETS, _check_options
from vitrail.errors import UserError


def idx(values: np.ndarray) -> bytes:
    """MNIST's file format: magic (type uint8, dimensions), sizes, bytes."""
    head = bytes([0, 0, 8, values.ndim]) + b"".join(n.to_bytes(4, "big") for n in values.shape)
    return head + values.astype(np.uint8).tobytes()


@pytest.fixture
def fashion_root(tmp_path):
    """A Fashion-MNIST of 40 + 20 pictures, laid out as torchvision wants it."""
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, number in (("train", 40), ("t10k", 20)):
        images = rng.integers(0, 256, (number, 28, 28))
        (raw / f"{name}-images-idx3-ubyte").write_bytes(idx(images))
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(idx(np.arange(number) % 10))
    return tmp_path


def test_a_torchvision_set_by_name(fashion_root):
    pictures = open_dataset(f"torchvision:FashionMNIST@{fashion_root}")
    assert pictures.classes[0] == "T-shirt/top" and len(pictures.classes) == 10
    assert [len(pictures.split(s)) for s in ("train", "val", "test")] == [30, 10, 20]
    copy = pickle.loads(pickle.dumps(pictures))
    item = pictures.split("test")[3]
    theirs, label = datasets.FashionMNIST(str(fashion_root), train=False)[3]
    assert item.label == label == 3
    np.testing.assert_array_equal(np.asarray(copy.read(item))[:, :, 0], theirs)


def test_a_set_without_splits_or_files():
    pictures = open_dataset("torchvision:FakeData(size=30, image_size=(3, 9, 8), num_classes=3)")
    assert set(pictures.classes) == {"0", "1", "2"}
    assert pictures.read(pictures.items[0]).size == (8, 9)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("torchvision:CIFAR10@/nowhere", "cannot be opened in '/nowhere' \\(Dataset not found"),
        ("torchvision:ImageNet@/nowhere", "cannot be opened in '/nowhere'"),
        ("torchvision:OxfordIIITPet@/nowhere", "cannot be opened in '/nowhere'"),
        ("torchvision:Cifar10", "torchvision:Cifar10 is not known as a set with one label"),
        ("torchvision:VOCDetection", "is not known as a set with one label"),
        ("torchvision:CIFAR10(size=3)", "has no option size"),
        ("torchvision:FakeData(size=-3)", "torchvision:FakeData has no length"),
        ("torchvision:FakeData(size=0)", "has 0 pictures"),
        ("torchvision:FakeData(size=99999999999)", "has 99,999,999,999 pictures"),
        ("torchvision:FakeData(image_size=3)", "torchvision:FakeData, picture 0: "),
        ("torchvision:EMNIST", "needs an option: torchvision:EMNIST\\(split=...\\)"),
    ],
)
def test_one_line_where_it_cannot_be(text, line):
    with pytest.raises(UserError, match=line) as caught:
        open_dataset(text)
    assert "\n" not in str(caught.value)
    assert "download=True" not in str(caught.value)


@pytest.mark.parametrize("name", [n for n in SETS if n != "EMNIST"])
def test_the_table_speaks_torchvisions_language(name):
    parameters = inspect.signature(getattr(datasets, name)).parameters
    for arguments in SETS[name].values():
        assert set(arguments) <= set(parameters)
    _check_options(name, {})


@pytest.mark.parametrize("cut", [0, 3, 8, 100])
def test_damaged_files_of_torchvisions_are_one_line(cut, fashion_root):
    path = fashion_root / "FashionMNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UserError, match="torchvision:FashionMNIST cannot be opened") as caught:
        open_dataset(f"torchvision:FashionMNIST@{fashion_root}")
    assert "\n" not in str(caught.value)


def test_a_damaged_picture_of_torchvisions_is_one_line(tmp_path):
    write(tmp_path / "eurosat" / "2750", {f"{c}/{i}.jpg": b"no" for c in "ab" for i in range(3)})
    pictures = open_dataset(f"torchvision:EuroSAT@{tmp_path}")
    with pytest.raises(UserError, match="cannot be decoded") as caught:
        pictures.read(pictures.items[0])
    assert "\n" not in str(caught.value)
