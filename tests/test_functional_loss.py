"""linear_cross_entropy: the mean over tokens that count, whatever the chunk."""

import ml_dtypes
import numpy as np
import pytest
from gradients import back, check_op, put, variable
from reference import cross_entropy

import longnet
from longnet import functional as F
from longnet.autograd import Variable, no_grad
from longnet.matmul import matmul

pytestmark = pytest.mark.usefixtures("device")


def reference(x, weight, bias, targets, ignore_index=-100):
    logits = x.reshape(-1, x.shape[-1]) @ weight.T + bias
    targets = targets.reshape(-1)
    losses = cross_entropy.forward(logits, targets, ignore_index)
    return losses.sum() / (targets != ignore_index).sum()


def problem(rng, shape=(2, 13), vocabulary=11, width=6):
    arrays = [rng.standard_normal(s) for s in ((*shape, width), (vocabulary, width), (vocabulary,))]
    targets = rng.integers(0, vocabulary, shape).astype(np.int32)
    targets[rng.random(shape) < 0.3] = -100
    targets.flat[0] = 3
    return arrays, targets


@pytest.mark.parametrize("chunk", [1, 5, 13, 26, 1000])
@pytest.mark.parametrize("bias", [False, True])
def test_loss_and_gradients(rng, chunk, bias):
    arrays, targets = problem(rng)
    check_op(
        lambda x, w, b=None: F.linear_cross_entropy(x, w, b, targets, chunk=chunk),
        lambda x, w, b=0.0: reference(x, w, b, targets),
        arrays if bias else arrays[:2],
        rng,
    )


def test_int64_targets_and_another_ignore_index(rng):
    arrays, targets = problem(rng)
    targets = np.where(targets == -100, 7, targets).astype(np.int64)
    check_op(
        lambda x, w, b: F.linear_cross_entropy(x, w, b, targets, ignore_index=7),
        lambda x, w, b: reference(x, w, b, targets, 7),
        arrays,
        rng,
    )


def test_forward_alone_gives_the_same_loss_and_keeps_nothing(rng):
    arrays, targets = problem(rng)
    inputs = [variable(a) for a in arrays]
    loss = F.linear_cross_entropy(*inputs, targets, chunk=4)
    with no_grad():
        alone = F.linear_cross_entropy(*inputs, targets, chunk=4)
    assert not alone.requires_grad
    assert alone.item() == loss.item()


def test_only_the_gradients_that_are_wanted(rng):
    arrays, targets = problem(rng)
    everything = [variable(a) for a in arrays]
    F.linear_cross_entropy(*everything, targets).backward()
    for i in range(3):
        inputs = [
            Variable(put(a.astype(np.float32)), requires_grad=i == j) for j, a in enumerate(arrays)
        ]
        F.linear_cross_entropy(*inputs, targets).backward()
        for j, x in enumerate(inputs):
            assert (x.grad is not None) == (i == j)
        found, expected = back(inputs[i].grad), back(everything[i].grad)
        # the sums of a bias alone may be taken in another order
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())


def test_logits_never_exist_as_a_whole(rng, device):
    if device != "cpu":
        pytest.skip("the scratch of products is counted there too")
    tokens, vocabulary, width, chunk = 512, 1000, 8, 16
    x, weight = (
        variable(rng.standard_normal((tokens, width))),
        variable(rng.standard_normal((vocabulary, width))),
    )
    targets = rng.integers(0, vocabulary, tokens).astype(np.int32)
    before = longnet.memory_stats()["bytes"]
    longnet.reset_peak_memory()
    loss = F.linear_cross_entropy(x, weight, None, targets, chunk=chunk)
    extra = longnet.memory_stats()["peak_bytes"] - before
    loss.backward()
    # a chunk of logits, the two gradients, one product waiting to be added, the losses
    expected = 4 * (chunk * vocabulary + tokens * width + 2 * vocabulary * width + tokens)
    assert extra < expected + 4096 < 4 * tokens * vocabulary


def test_a_large_vocabulary_of_large_logits(rng):
    arrays, targets = problem(rng, (3, 9), vocabulary=1003)
    arrays[0] *= 100
    check_op(
        lambda x, w, b: F.linear_cross_entropy(x, w, b, targets),
        lambda x, w, b: reference(x, w, b, targets),
        arrays,
        rng,
        tolerance=5e-5,  # logits of some hundreds are themselves off by 3e-5
    )


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision(rng, dtype):
    arrays, targets = problem(rng)
    rounded = [a.astype(dtype) for a in arrays]
    inputs = [Variable(put(a), requires_grad=True) for a in rounded]
    exact = [variable(a) for a in rounded]
    loss = F.linear_cross_entropy(*inputs, targets, chunk=5)
    expected = F.linear_cross_entropy(*exact, targets, chunk=5)
    eps = float(ml_dtypes.finfo(dtype).eps)
    assert loss.dtype == "float32"
    assert loss.item() == pytest.approx(expected.item(), abs=4 * eps)
    loss.backward()
    expected.backward()
    for x, y in zip(inputs, exact, strict=True):
        found, expected = back(x.grad), back(y.grad)
        assert found.dtype == dtype
        assert np.abs(found.astype(float) - expected).max() < 4 * eps * np.abs(expected).max()


def test_half_precision_keeps_rare_tokens_among_many(rng):
    """A chance of 0.0005, divided by 65,536 tokens, is 0 in float16; the mean gradient is not."""
    x, weight = rng.standard_normal((65536, 4)), rng.standard_normal((5, 4))
    x[:, 0], weight[:, 0] = 1.0, 0.0
    weight[4] = -6.0, 0.0, 0.0, 0.0
    targets, exact = rng.integers(0, 4, 65536), variable(weight)
    half = Variable(put(weight.astype(np.float16)), requires_grad=True)
    F.linear_cross_entropy(variable(x), exact, None, targets).backward()
    F.linear_cross_entropy(Variable(put(x.astype(np.float16))), half, None, targets).backward()
    found, expected = back(half.grad)[4, 0], back(exact.grad)[4, 0]
    assert expected > 1e-4
    assert abs(found - expected) < 2e-3 * expected


def test_scaled_loss(rng):
    arrays, targets = problem(rng)
    whole, part = ([variable(a) for a in arrays] for _ in range(2))
    F.linear_cross_entropy(*whole, targets).backward()
    F.linear_cross_entropy(*part, targets).backward(put(np.array(0.25, np.float32)))
    for x, y in zip(whole, part, strict=True):
        np.testing.assert_allclose(back(y.grad), 0.25 * back(x.grad), rtol=1e-6)


def test_shares_of_a_batch_add_up(rng):
    """With the count of the whole batch, parts of it, one with nothing that counts, give shares."""
    arrays, targets = problem(rng, (4, 9))
    targets[2:] = -100
    whole = [variable(a) for a in arrays]
    loss = F.linear_cross_entropy(*whole, targets)
    loss.backward()
    count, total, parts = int((targets != -100).sum()), 0.0, [variable(a) for a in arrays[1:]]
    for rows in (slice(0, 1), slice(1, 2), slice(2, 4)):
        share = F.linear_cross_entropy(
            variable(arrays[0][rows]), *parts, targets[rows], count=count
        )
        total += share.item()
        share.backward()
    assert share.item() == 0.0
    assert total == pytest.approx(loss.item(), rel=1e-6)
    for x, y in zip(whole[1:], parts, strict=True):
        np.testing.assert_allclose(back(y.grad), back(x.grad), rtol=0, atol=1e-6)
    with pytest.raises(longnet.ConfigError, match=rf"count is 2, expected {count} or more"):
        F.linear_cross_entropy(*whole, targets, count=2)


def test_errors_name_what_is_wrong(rng):
    arrays, targets = problem(rng)
    x, weight, bias = (variable(a) for a in arrays)
    with pytest.raises(longnet.ShapeError, match=r"targets \(2, 12\), expected \(2, 13\)"):
        F.linear_cross_entropy(x, weight, bias, targets[:, 1:])
    with pytest.raises(longnet.ShapeError, match=r"x \(2, 13, 6\) and weight \(11, 5\)"):
        F.linear_cross_entropy(x, variable(arrays[1][:, :5]), bias, targets)
    with pytest.raises(longnet.ShapeError, match="chunk 0, expected at least 1"):
        F.linear_cross_entropy(x, weight, bias, targets, chunk=0)
    with pytest.raises(longnet.DataError, match="26 targets, all -100"):
        F.linear_cross_entropy(x, weight, bias, np.full_like(targets, -100))
    for bad in (-1, 11):
        wrong = targets.copy()
        wrong[1, 4] = bad
        with pytest.raises(longnet.ConfigError, match=rf"target 17 is {bad}, expected 0 to 10"):
            F.linear_cross_entropy(x, weight, bias, wrong)


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda"], indirect=True)
def test_targets_on_a_gpu(rng):
    arrays, targets = problem(rng)
    inputs = [variable(a) for a in arrays]
    there = put(targets)
    with pytest.raises(longnet.ConfigError, match="targets on cuda:0 and no count, expected one"):
        F.linear_cross_entropy(*inputs, there)
    count = int((targets != -100).sum())
    found = F.linear_cross_entropy(*inputs, there, count=count)
    assert found.item() == F.linear_cross_entropy(*inputs, targets).item()


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda"], indirect=True)
def test_nothing_waits_for_the_gpu(rng):
    arrays, targets = problem(rng, (4, 256), vocabulary=512, width=64)
    inputs = [variable(a) for a in arrays]
    square = put(np.zeros((8192, 8192), np.float32))
    product = square.copy()

    def step():
        F.linear_cross_entropy(*inputs, targets, chunk=256).backward()

    step()
    matmul(product, square, square)
    longnet.synchronize("cuda")
    for _ in range(20):  # some hundred milliseconds
        matmul(product, square, square)
    queued = longnet.Stream.current("cuda").record()
    step()
    assert not queued.done
    longnet.synchronize("cuda")
