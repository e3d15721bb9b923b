import pytest
import torch

from vitrail.layers.grid import cells, pad_to, to_map, to_tokens


def test_map_and_tokens_are_views_of_one_memory():
    tokens = torch.randn(2, 12, 5)
    image = to_map(tokens, (3, 4))
    assert image.shape == (2, 5, 3, 4) and image.data_ptr() == tokens.data_ptr()
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert to_tokens(image).data_ptr() == tokens.data_ptr()
    assert torch.equal(to_tokens(image), tokens)
    assert image[1, 2, 1, 3] == tokens[1, 1 * 4 + 3, 2]


@pytest.mark.parametrize("images", [1, 3])
def test_a_slice_behind_a_class_token_becomes_a_dense_map(images):
    tokens = torch.randn(images, 13, 5)
    image = to_map(tokens[:, 1:], (3, 4))
    assert image.stride() == (60, 1, 20, 5)
    assert torch.equal(to_tokens(image), tokens[:, 1:])


def test_padding_and_cells():
    assert pad_to(torch.ones(1, 1, 5, 8), 4).shape == (1, 1, 8, 8)
    assert pad_to(torch.ones(1, 1, 5, 8), 4).sum() == 40
    assert cells((5, 8), 4) == (2, 2)
