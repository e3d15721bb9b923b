"""What a program of a stranger's may call."""

from typing import Any

import pytest
import torch

from vitrail.export.operators import Unsafe, check_operator, multiply_sizes, raise_size


@pytest.mark.parametrize(
    "name",
    ["linear.default", "conv2d.padding", "gelu.default", "relu_.default", "hardswish_.default",
     "index_copy.default", "scaled_dot_product_attention.default", "to.dtype", "zeros.default"],
)  # fmt: skip
def test_what_networks_are_made_of_may_be_called(name: str) -> None:
    check_operator(f"torch.ops.aten.{name}")


@pytest.mark.parametrize(
    "name",
    ["_reshape_alias.default", "_sparse_coo_tensor_unsafe.default", "set_.source_Tensor",
     "max_pool2d_with_indices_backward.default", "native_batch_norm.default", "resize_.default",
     "segment_reduce.default", "_embedding_bag.default", "manual_seed.default", "as_tensor"],
)  # fmt: skip
def test_what_leaves_checks_to_its_callers_may_not(name: str) -> None:
    with pytest.raises(Unsafe):
        check_operator(f"torch.ops.aten.{name}")


def test_sizes_stay_sizes() -> None:
    assert multiply_sizes(3, 5) == 15 and raise_size(2, 62) == 2**62 and raise_size(2, -1) == 0.5
    assert multiply_sizes(torch.ones(2), 3).tolist() == [3, 3]
    wrong: tuple[tuple[Any, Any], ...] = ((2**40, 2**40), ([1], 10**12), (10**12, "x"))
    for a, b in wrong:
        with pytest.raises(Unsafe):
            multiply_sizes(a, b)
    wrong = ((10**9, 10**9), (2, 63), ("x", 2))
    for a, b in wrong:
        with pytest.raises(Unsafe):
            raise_size(a, b)
