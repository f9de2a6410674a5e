"""Batches on their way to a device."""

import numpy as np
import pytest

from longnet.data import ArraySource, Batches
from longnet.train.feed import Feed


def make(device):
    tokens = np.arange(1000, dtype=np.int32) % 251
    return Batches(ArraySource(tokens, 256), 2, 24, 5), Feed(
        Batches(ArraySource(tokens, 256), 2, 24, 5), device
    )


def test_the_same_batches_in_the_same_order(device):
    batches, feed = make(device)
    for _ in range(50):  # more than two epochs
        batch, (inputs, targets) = next(feed), next(batches)
        np.testing.assert_array_equal(batch.inputs.to("cpu").numpy(), inputs)
        np.testing.assert_array_equal(batch.targets.to("cpu").numpy(), targets)
        assert batch.inputs.device.startswith(device)


@pytest.mark.parametrize("taken", [0, 1, 7])
def test_the_state_is_that_of_what_was_handed_out(device, taken):
    batches, feed = make(device)
    for _ in range(taken):
        next(feed)
        next(batches)
    assert feed.state_dict() == batches.state_dict()
    _, other = make(device)
    next(other)
    other.load_state_dict(feed.state_dict())
    assert other.state_dict() == feed.state_dict()
    np.testing.assert_array_equal(next(other).inputs.to("cpu").numpy(), next(batches)[0])


def test_a_part_of_each_batch_with_the_state_of_all(device):
    batches, _ = make(device)
    tokens = np.arange(1000, dtype=np.int32) % 251
    part = slice(1, 2), slice(8, 20)
    feed = Feed(Batches(ArraySource(tokens, 256), 2, 24, 5), device, lambda shape: part)
    for _ in range(5):
        batch, (inputs, targets) = next(feed), next(batches)
        np.testing.assert_array_equal(batch.inputs.to("cpu").numpy(), inputs[part])
        np.testing.assert_array_equal(batch.targets.to("cpu").numpy(), targets[part])
        assert feed.state_dict() == batches.state_dict()
