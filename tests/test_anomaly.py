"""The first op that makes a number which is not finite is named."""

import numpy as np
import pytest
from gradients import variable

import longnet
from longnet import Tensor
from longnet import functional as F
from longnet.anomaly import detect_anomaly
from longnet.autograd import Variable, record


def test_a_result(rng):
    x, weight = variable(rng.standard_normal((3, 4))), variable(rng.standard_normal((5, 4)))
    weight.data.numpy()[2, 1] = np.inf
    with detect_anomaly():
        F.gelu(x)
        with pytest.raises(
            longnet.DivergenceError,
            match=r"linear: found -?inf at \(0, 2\) in the result of shape \(3, 5\), 3 of 15 el",
        ):
            F.linear(x, weight)
    F.linear(x, weight)  # outside nothing is looked at


def test_a_gradient():
    def broken(x: Variable) -> Variable:
        def backward(dy: Tensor) -> list[Tensor | None]:
            return [Tensor(np.full(x.shape, np.nan, np.float32))]

        return record(x.data.copy(), [x], backward)

    x = variable(np.ones((2, 2)))
    with detect_anomaly():
        out = F.gelu(broken(F.gelu(x)))
        expected = r"broken: found nan at \(0, 0\) in the gradient of input 0 of shape \(2, 2\)"
        with pytest.raises(longnet.DivergenceError, match=expected):
            out.backward(Tensor(np.ones((2, 2), np.float32)))


def test_the_loss_is_called_by_its_name(rng):
    x, weight = variable(rng.standard_normal((3, 4))), variable(rng.standard_normal((5, 4)))
    x.data.numpy()[0, 0] = np.nan
    with detect_anomaly(), pytest.raises(longnet.DivergenceError, match=r"loss: found nan in the"):
        F.linear_cross_entropy(x, weight, None, np.zeros(3, np.int32))
