import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tests.data.corpus import saved, small_set, write

from vitrail.data import (
    Augment,
    ImageTensors,
    Loader,
    Preprocess,
    batches,
    epoch_order,
    measure_loader,
    open_dataset,
    sequential_order,
)
from vitrail.errors import UserError

PRE = Preprocess(image=16)
STRONG = Augment(color_jitter=0.3, erase=0.5)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return open_dataset(write(tmp_path_factory.mktemp("set"), small_set("abc", each=6)))


def make(pictures, *, seed=0, cache=None, augment=STRONG):
    transform = augment.transform(PRE) if augment else PRE.transform()
    return ImageTensors(pictures, pictures.split("train"), transform, seed, cache=cache)


def run(data, workers=0, epoch=2, order=None):
    order = order or epoch_order(len(data), batch=4, seed=5, epoch=epoch)
    return list(batches(data, order=order, workers=workers, epoch=epoch))


def same(one, other):
    return len(one) == len(other) and all(
        torch.equal(a, b)
        for x, y in zip(one, other, strict=True)
        for a, b in zip(x, y, strict=True)
    )


def test_a_batch_is_images_labels_and_places(pictures):
    data = make(pictures)
    images, labels, places = run(data)[0]
    assert images.shape == (4, 3, 16, 16) and images.dtype == torch.float32
    assert labels.tolist() == [data.items[i].label for i in places.tolist()]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("cache", [None, "memory"])
def test_workers_and_cache_change_nothing(pictures, workers, cache):
    assert same(run(make(pictures, cache=cache), workers), run(make(pictures)))


def test_evaluation_through_the_cache_is_the_same_to_the_bit(pictures):
    assert same(
        run(make(pictures, augment=None, cache="memory")), run(make(pictures, augment=None))
    )


def test_starting_in_the_middle_gives_the_rest(pictures):
    data = make(pictures)
    order = epoch_order(len(data), batch=4, seed=5, epoch=2)
    assert same(run(data, order=order[2:]), run(data, order=order)[2:])


def test_a_sample_depends_on_seed_epoch_and_key_alone(pictures):
    data = make(pictures)
    first = data[3, 1][0]
    torch.rand(100)
    assert torch.equal(data[3, 1][0], first)
    assert not torch.equal(data[4, 1][0], first)
    assert not torch.equal(make(pictures, seed=1)[3, 1][0], first)
    turned = ImageTensors(pictures, data.items[::-1], data.transform, 0)
    assert torch.equal(turned[3, len(data) - 2][0], first)
    assert torch.equal(data[1][0], data[0, 1][0])


def test_the_callers_randomness_is_left_alone(pictures):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    make(pictures)[0, 0]
    assert torch.equal(torch.rand(3), expected)


def test_the_callers_threads_are_left_alone(pictures):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for _ in Loader(make(pictures)).epoch([[0], [1]]):
            assert torch.get_num_threads() == 2
        with pytest.raises(TypeError):
            list(Loader(make(pictures)).epoch([[None]]))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_sets_pickle_with_their_cache(pictures):
    data = make(pictures, cache="memory")
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[1, 2][0], data[1, 2][0])


def test_workers_live_on_and_an_epoch_may_be_left_early(pictures):
    data = make(pictures)
    loader = Loader(data, workers=1)
    order = [epoch_order(len(data), batch=2, seed=0, epoch=e) for e in range(3)]
    next(iter(loader.epoch(order[0], epoch=0)))
    for epoch in (1, 2):
        found = list(loader.epoch(order[epoch], epoch=epoch))
        assert same(found, run(data, epoch=epoch, order=order[epoch]))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_lost_on_the_way_is_named_in_one_line(tmp_path, workers):
    pictures = open_dataset(write(tmp_path, small_set()))
    data = make(pictures)
    (tmp_path / data.items[0].key).unlink()
    with pytest.raises(UserError) as caught:
        run(data, workers, order=[[0]])
    assert str(caught.value) == f"{tmp_path}, {data.items[0].key}: there is no such file"


@pytest.mark.parametrize("augment", [None, STRONG])
def test_the_caches_size_is_known_before(pictures, augment):
    data = make(pictures, cache="memory", augment=augment)
    assert data.cache.bytes == ImageTensors.cache_bytes(data.items, data.transform) > 0


def test_no_such_cache(pictures):
    with pytest.raises(UserError, match="no cache 'disk'"):
        make(pictures, cache="disk")


def test_an_empty_set_can_be_cached(pictures):
    assert len(ImageTensors(pictures, (), PRE.transform(), 0, cache="memory")) == 0


@given(st.integers(0, 60), st.integers(1, 9), st.integers(0, 99), st.integers(0, 9), st.booleans())
def test_orders_hold_everything_once(count, batch, seed, epoch, drop):
    lots = epoch_order(count, batch=batch, seed=seed, epoch=epoch, drop_last=drop)
    flat = [i for lot in lots for i in lot]
    assert lots == epoch_order(count, batch=batch, seed=seed, epoch=epoch, drop_last=drop)
    assert all(len(lot) == batch for lot in lots[: None if drop else -1])
    assert len(set(flat)) == len(flat) == (count // batch * batch if drop else count)
    assert sum(sequential_order(count, batch=batch), []) == list(range(count))


def test_epochs_and_seeds_are_shuffled_differently():
    orders = {str(epoch_order(50, batch=50, seed=s, epoch=e)) for s in range(3) for e in range(3)}
    assert len(orders) == 9


@pytest.mark.parametrize("workers", [0, 1])
def test_the_loaders_speed_is_a_number(pictures, workers):
    speed = measure_loader(make(pictures, cache="memory"), batch=4, workers=workers, seconds=0.1)
    assert speed > 1


@pytest.mark.parametrize("known", [True, False])
def test_the_cache_never_takes_more_than_its_limit(known, tmp_path, monkeypatch):
    """Long, thin pictures are far larger than their short side says."""
    files = {f"{c}/{i}.png": _thin(9 * i + (c == "b")) for c in "ab" for i in range(3)}
    pictures = open_dataset(write(tmp_path, files))
    items = [i if known else replace(i, size=(0, 0)) for i in pictures.items]
    transform = Augment().transform(Preprocess(image=16))
    size = sum(transform.prepared_bytes(i.size) for i in pictures.items)
    kept = ImageTensors(pictures, items, transform, 0, cache="memory", limit=size)
    assert kept.cache is not None and kept.cache.bytes == size == 6 * 8 * 800 * 3
    read = []
    monkeypatch.setattr(ImageTensors, "_prepare", lambda self, i: read.append(i) or np.zeros(size))
    assert ImageTensors(pictures, items, transform, 0, cache="memory", limit=size - 1).cache is None
    assert bool(read) != known


def _thin(number: int) -> bytes:
    return saved(Image.new("RGB", (800, 8), (number, 0, 0)), "PNG")
