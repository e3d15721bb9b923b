"""The maps that know nothing of the model."""

import torch

from vitrail.attribution.baselines import centre, edges, random_map

IMAGES = torch.zeros(2, 3, 9, 13)


def test_the_centre_is_highest_and_even() -> None:
    maps = centre(IMAGES)
    assert maps.shape == (2, 9, 13)
    assert int(maps[0].argmax()) == 4 * 13 + 6 and float(maps.max()) == 1
    assert torch.allclose(maps, maps.flip(1, 2))


def test_edges_of_a_step_are_four_times_its_height() -> None:
    images = IMAGES.clone()
    images[:, :, :, 7:] = 2.0
    maps = edges(images)
    assert maps[:, :, 6:8].eq(8).all() and maps[:, :, :6].eq(0).all() and maps[:, :, 8:].eq(0).all()


def test_noise_is_seeded() -> None:
    assert torch.equal(random_map(IMAGES), random_map(IMAGES, seed=0))
    assert not torch.equal(random_map(IMAGES)[0], random_map(IMAGES)[1])
