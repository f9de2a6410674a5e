"""The op cross_entropy against its reference."""

import numpy as np
import pytest
from ops import FLOATS, Call, assert_close, assert_gradients, check_contract, check_offsets, poison
from reference import cross_entropy as reference

import longnet

pytestmark = pytest.mark.usefixtures("device")
IGNORE = -100


def make(rng, shape=(400, 131), dtype=np.float32, index=np.int64, size=3.0):
    rows, vocabulary = shape
    logits = (rng.standard_normal(shape) * size).astype(dtype)
    targets = rng.integers(0, vocabulary, rows).astype(index)
    targets[rng.random(rows) < 0.2] = IGNORE
    outputs = {"loss": poison(rows), "dlogits": poison(*shape, dtype=dtype)}
    inputs = {"logits": logits, "targets": targets, "scale": 0.25, "ignore_index": IGNORE}
    return Call("cross_entropy", outputs, inputs)


def expected(call):
    logits, targets, scale, ignored = call.inputs.values()
    loss = reference.forward(logits, targets, ignored)
    return loss, reference.backward(logits, targets, scale, ignored)


@pytest.mark.parametrize("index", [np.int32, np.int64])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize(
    "shape",
    [(1, 1), (5, 2), (0, 7), (33, 17), (20, 256), (7, 512), (6, 1025), (3, 50_304), (2, 70_000)],
)
def test_values(rng, shape, dtype, index):
    call = make(rng, shape, dtype, index)
    loss, dlogits = expected(call)
    computed = call()
    assert_close(computed[0], loss, term=np.abs(loss) + 10)
    assert_close(computed[1], dlogits, term=np.array(0.25))
    assert np.array_equal(call(dlogits=None)[0], computed[0])


@pytest.mark.parametrize("dtype", FLOATS)
def test_in_place(rng, dtype):
    call = make(rng, dtype=dtype)
    place = call.inputs["logits"].copy()
    call(dlogits=place, logits=place)
    assert np.array_equal(place, call()[1])


def test_reference_gradient(rng):
    call = make(rng, (6, 9), float)
    inputs = {**call.inputs}
    scale = inputs.pop("scale")
    gradients = {"logits": reference.backward(**inputs, scale=scale)}
    doutput = np.full(6, scale)
    assert_gradients(reference.forward, inputs, doutput, gradients, rng)


def test_probabilities_below_the_smallest(rng):
    """Logits far apart: exact zeros and ones, no NaN."""
    call = make(rng, (2, 40), size=0.0)
    call.inputs["targets"][:] = 3
    call.inputs["logits"][0, 3], call.inputs["logits"][1, 5] = 3e38, 3e38
    loss, dlogits = call()
    assert np.array_equal(loss, np.float32([0, 3e38]))
    assert np.array_equal(dlogits[0], np.zeros(40))
    assert np.array_equal(dlogits[1], 0.25 * (np.eye(40)[5] - np.eye(40)[3]))


@pytest.mark.parametrize("level", [0, 1000, -1000])
@pytest.mark.parametrize("vocabulary", [40, 5000])
def test_minus_infinity_is_an_impossible_token(rng, vocabulary, level):
    call = make(rng, (3, vocabulary))
    logits = call.inputs["logits"]
    logits += level
    call.inputs["targets"][:] = vocabulary - 1
    logits[0, : vocabulary - 3] = -np.inf  # whole blocks of them come first
    logits[1, vocabulary - 1] = -np.inf
    loss, dlogits = call()
    with np.errstate(divide="ignore"):
        exact = expected(call)
    assert_close(loss[::2], exact[0][::2], term=np.array(10.0))
    assert loss[1] == np.inf
    assert_close(dlogits, exact[1], term=np.array(0.25))
    assert (dlogits[0, : vocabulary - 3] == 0).all()


@pytest.mark.parametrize("vocabulary", [5, 40, 5000])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("bad", ["all -inf", "one +inf", "one NaN", "all NaN"])
def test_rows_without_a_softmax(rng, bad, dtype, vocabulary):
    """Loss and gradient of the row are NaN; the other rows do not notice."""
    call = make(rng, (4, vocabulary), dtype)
    call.inputs["targets"][:] = 1
    clean = call()
    columns = slice(None) if bad.startswith("all") else int(rng.integers(vocabulary))
    value = {"-inf": -np.inf, "+inf": np.inf, "NaN": np.nan}[bad.split()[1]]
    call.inputs["logits"][2, columns] = value
    loss, dlogits = call()
    others = [0, 1, 3]
    assert np.isnan(loss[2])
    assert np.isnan(dlogits[2]).any()
    assert np.array_equal(loss[others], clean[0][others])
    assert np.array_equal(dlogits[others], clean[1][others])
    call.inputs["targets"][2] = IGNORE
    loss, dlogits = call()
    assert loss[2] == 0
    assert (dlogits[2] == 0).all()


@pytest.mark.parametrize("target", [131, -1, 2**40])
def test_target_out_of_range(rng, device, target):
    """An error on the CPU; a GPU, which cannot wait to look, makes the row NaN."""
    call = make(rng)
    call.inputs["targets"][17] = IGNORE
    clean = call()
    call.inputs["targets"][17] = target
    if device != "cpu":
        for found, other in zip(call(), clean, strict=True):
            assert np.isnan(found[17]).all()
            found[17] = 0
            assert np.array_equal(found, other)
        return
    expected = f"cross_entropy: targets: element 17 is {target}, expected 0 to 130"
    with pytest.raises(longnet.ConfigError, match=expected):
        call()


def test_contract(rng):
    check_contract(make(rng))
    check_offsets(make(rng, (3, 64)))
