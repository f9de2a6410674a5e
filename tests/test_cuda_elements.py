"""Ops on tensors of more than 2^31 elements on a GPU."""

import numpy as np
import pytest

from longnet import Tensor
from longnet._core import ops

pytestmark = pytest.mark.gpu
COUNT = 2**31 + 1031


@pytest.fixture(scope="module")
def ones():
    x = Tensor.empty(COUNT, "bfloat16", "cuda")
    ops.fill(x, 1.0)
    return x


def end(x: Tensor) -> np.ndarray:
    return x[-2000:].to("cpu").numpy().astype(float)


def test_every_element_is_written(ones):
    y = Tensor.empty(COUNT, "bfloat16", "cuda")
    ops.fill(y, np.nan)
    ops.add(y, ones, ones, 2.0)
    assert (end(y) == 3).all()
    total = Tensor.empty(1, device="cuda")
    ops.sum_squares(total, y)
    assert total.to("cpu").numpy()[0] == np.float32(9 * COUNT)


def test_rows(ones):
    x, rows = ones[: 7 * (COUNT // 7)].reshape(COUNT // 7, 7), COUNT // 7
    y, bias = Tensor.empty((rows, 7), "bfloat16", "cuda"), Tensor.empty(7, "bfloat16", "cuda")
    ops.fill(y, np.nan)
    ops.fill(bias, 4.0)
    ops.bias_add(y, x, bias)
    assert (end(y.reshape(7 * rows)) == 5).all()
    ops.sum_rows(bias, y)
    np.testing.assert_allclose(bias.to("cpu").numpy().astype(float), 5 * rows, rtol=2**-8)
