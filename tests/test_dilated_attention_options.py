"""Which rows exist, dropout, grouped heads, and the arrays that longnet.DilatedAttention takes."""

import itertools
from dataclasses import asdict, replace

import numpy as np
import pytest
from attention_cases import NAMES, Case, op_arguments, relative_error
from ops import Call, poison
from reference.dilated_attention import Pattern

longnet = pytest.importorskip("longnet")

PATTERN = Pattern((24, 70), (1, 3))


def make_case(rng, pattern=PATTERN, n=101, heads=4, kv_heads=2, dim=16, batch=1, **options):
    shapes = [(batch, n, h, dim) for h in (heads, kv_heads, kv_heads, heads)]
    return Case(pattern, *(rng.standard_normal(x, dtype=np.float32) for x in shapes), options)


def assert_same(first, second):
    for name, x, y in zip(NAMES, first, second, strict=True):
        np.testing.assert_array_equal(x, y, err_msg=name, strict=True)


def alone(case, item, rows):
    """The case of some rows of one batch item, alone."""
    arrays = (x[item : item + 1, rows] for x in (case.q, case.k, case.v, case.dout))
    return Case(case.pattern, *arrays, {})


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("zeros", [True, False])
def test_padding_does_not_exist(rng, causal, zeros):
    """Rows past the length are as if the array ended there, whatever lies in them."""
    pattern = replace(PATTERN, causal=causal, zero_keys=zeros)
    case = make_case(rng, pattern, batch=4, lengths=np.array([101, 0, 1, 77]))
    for item, length in enumerate(case.options["lengths"]):
        for x in (case.q, case.k, case.v, case.dout):
            x[item, length:] = np.nan
    results = case.computed()
    for item, length in enumerate(case.options["lengths"]):
        out, lse, dq, dk, dv = (x[item : item + 1] for x in results)
        assert not any(x[:, length:].any() for x in (out, dq, dk, dv))
        assert np.isneginf(lse[..., length:]).all()
        part = out[:, :length], lse[..., :length], *(x[:, :length] for x in (dq, dk, dv))
        assert_same(part, alone(case, item, slice(0, length)).computed())


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("zeros", [True, False])
def test_documents_are_apart(rng, causal, zeros):
    """Documents packed end to end are what each is alone."""
    ends = np.array([0, 1, 1, 40, 101])
    case = make_case(rng, replace(PATTERN, causal=causal, zero_keys=zeros), cu_seqlens=ends)
    out, lse, *gradients = case.computed()
    for start, end in itertools.pairwise(ends):
        rows = slice(start, end)
        part = out[:, rows], lse[..., rows], *(x[:, rows] for x in gradients)
        assert_same(part, alone(case, 0, rows).computed())


def test_dropout_follows_the_seed(rng):
    case = make_case(rng, replace(PATTERN, dropout=0.5), seed=1)
    again = replace(case, options={"seed": 1})
    other = replace(case, options={"seed": 2})
    first = case.computed()
    assert_same(first, again.computed())
    assert not np.array_equal(first[0], other.computed()[0])
    assert np.array_equal(first[1], other.computed()[1])  # the LSE is of all keys


@pytest.mark.parametrize("kind", [np.int64, np.uint8, np.array])
def test_the_seed_may_be_one_of_numpys(rng, kind):
    case = make_case(rng, replace(PATTERN, dropout=0.5), seed=200)
    assert_same(case.computed(), replace(case, options={"seed": kind(200)}).computed())


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["lengths", "cu_seqlens"])
def test_arrays_of_rows_follow_the_query_to_a_gpu(rng, name):
    """They are checked on the host, where their values can be read, and moved."""
    case = make_case(rng, n=64)
    attention = longnet.DilatedAttention(**asdict(case.pattern))
    q, k, v = (longnet.Tensor(x).to("cuda") for x in (case.q, case.k, case.v))
    rows = {"lengths": np.array([50]), "cu_seqlens": np.array([0, 20, 64])}[name]
    wrong = {"lengths": np.array([65]), "cu_seqlens": np.array([0, 20, 65])}[name]
    dout, lse = q, longnet.Tensor.empty((1, case.q.shape[2], 64), device="cuda")
    for call in (
        lambda value: attention.forward(q, k, v, **{name: value}),
        lambda value: attention.backward(dout, q, k, v, q, lse, **{name: value}),
    ):
        with pytest.raises(longnet.ConfigError, match=f"{name}.* 65, expected"):
            call(wrong)
    missing = ""
    try:
        out, lse = attention.forward(q, k, v, **{name: rows})
        gradients = attention.backward(dout, q, k, v, out, lse, **{name: rows})
    except longnet.DeviceError as error:
        missing = str(error)
    assert name not in missing
    if missing:
        pytest.skip(missing)  # the kernel is, the array was not in its way
    on_gpu = {name: longnet.Tensor(rows).to("cuda")}
    again, _ = attention.forward(q, k, v, **on_gpu)
    np.testing.assert_array_equal(again.to("cpu").numpy(), out.to("cpu").numpy())
    expected = replace(case, dout=case.q, options={name: rows}).computed()
    for found, x in zip((out, lse, *gradients), expected, strict=True):
        assert relative_error(found.to("cpu").numpy(), x) < 1e-3


def test_dropout_is_unbiased(rng):
    case = make_case(rng, replace(PATTERN, dropout=0.3), n=64)
    attention = longnet.DilatedAttention(**asdict(case.pattern))
    mean = np.mean([attention.forward(case.q, case.k, case.v, seed=i)[0] for i in range(400)], 0)
    whole = replace(case, pattern=PATTERN).computed()[0]
    assert np.abs(mean - whole).mean() < 0.06 * np.abs(whole).mean()


def test_grouped_heads_are_repeated_heads(rng):
    grouped = make_case(rng, heads=6, kv_heads=2)
    apart = replace(grouped, k=np.repeat(grouped.k, 3, axis=2), v=np.repeat(grouped.v, 3, axis=2))
    out, lse, dq, dk, dv = apart.computed()
    summed = (x.reshape(1, 101, 2, 3, 16).sum(axis=3) for x in (dk, dv))
    for x, y in zip(grouped.computed(), (out, lse, dq, *summed), strict=True):
        assert relative_error(x, y) < 1e-5


@pytest.mark.parametrize("shape", [(0, 5, 2, 16), (2, 0, 2, 16), (0, 0, 2, 16)])
def test_nothing(shape):
    """No rows or no batch items: empty results."""
    empty = np.zeros(shape, np.float32)
    out, lse, dq, dk, dv = Case(PATTERN, *[empty] * 4, {}).computed()
    assert out.shape == dq.shape == dk.shape == dv.shape == shape
    assert lse.shape == (shape[0], shape[2], shape[1])


def test_uncovered_rows(rng):
    """No level covers head 1 at even rows: output 0, LSE -inf, and no gradient."""
    case = make_case(rng, Pattern((8,), (2,)), kv_heads=4)
    case.dout[:, ::2, 1] = np.nan
    out, lse, dq, dk, dv = case.computed()
    assert np.isneginf(lse[:, 1, ::2]).all()
    assert not any(x[:, ::2, 1].any() for x in (out, dq, dk, dv))
    assert all(np.isfinite(x).all() for x in (dq, dk, dv))


def over_nan(case):
    """Out, lse, dq, dk and dv by the ops, written over NaN."""
    options = case.options | op_arguments(case)
    inputs = {"q": case.q, "k": case.k, "v": case.v}
    batch, queries, heads, _ = case.q.shape
    outputs = {"out": poison(*case.q.shape), "lse": poison(batch, heads, queries)}
    out, lse = Call("dilated_attention", outputs, inputs | options)()
    outputs = {"d" + name: poison(*x.shape) for name, x in inputs.items()}
    inputs = {"dout": case.dout, **inputs, "out": out, "lse": lse}
    return out, lse, *Call("dilated_attention_backward", outputs, inputs | options)()


@pytest.mark.parametrize("cut", [(0, 203), (37, 150)])
@pytest.mark.parametrize(("heads", "kv_heads", "dim"), [(70, 70, 16), (130, 65, 16), (5, 5, 24)])
@pytest.mark.parametrize("pattern", [Pattern((40, 90), (5, 9)), Pattern((400,), (300,))])
def test_every_uncovered_row_is_written(rng, pattern, heads, kv_heads, dim, cut):
    """More heads than a word has bits, rows that share cache lines, rows that no query sees."""
    case = make_case(rng, pattern, 203, heads, kv_heads, dim, batch=2)
    found = over_nan(case.of_queries(*cut))
    errors = case.of_queries(*cut).errors(found, case.expected_of_queries(*cut))
    assert max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize("gradient", ["exact", "detached"])
@pytest.mark.parametrize("pattern", [Pattern((2048,), (64,)), Pattern((64, 3000), (32, 60))])
def test_threads_without_a_segment_clear_rows(rng, restore_threads, pattern, gradient):
    """Few segments of few rows, many uncovered ones, on more threads than there are segments."""
    case = make_case(rng, replace(pattern, gradient=gradient), 3000, heads=3, kv_heads=3, dim=64)
    expected, runs = case.expected(), []
    for threads in (1, 2, 8, 16):
        longnet.set_num_threads(threads)
        runs.append(over_nan(case))
        assert_same(runs[-1], runs[0])
    errors = case.errors(runs[0], expected)
    assert max(errors.values()) < 1e-5, errors


def test_read_only_inputs(rng):
    case = make_case(rng, lengths=np.array([90]))
    expected = case.computed()
    for x in (case.q, case.k, case.v, case.dout, case.options["lengths"]):
        x.flags.writeable = False
    assert_same(case.computed(), expected)


def test_inputs_are_left_alone(rng):
    case = make_case(rng)
    before = [x.copy() for x in (case.q, case.k, case.v, case.dout)]
    case.computed()
    for x, y in zip((case.q, case.k, case.v, case.dout), before, strict=True):
        np.testing.assert_array_equal(x, y)


def misaligned(x):
    memory = np.empty(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    memory[:] = x
    return memory


STRIDED = {
    "transposed": lambda x: np.ascontiguousarray(x.transpose(0, 2, 1, 3)).transpose(0, 2, 1, 3),
    "fortran": np.asfortranarray,
    "every other": lambda x: np.repeat(x, 2, axis=1)[:, ::2],
    "backwards": lambda x: np.ascontiguousarray(x[:, ::-1])[:, ::-1],
    "part of qkv": lambda x: np.concatenate([x, x, x], axis=3)[..., 16:32],
    "unaligned rows": lambda x: np.concatenate([x, x[..., :1]], axis=3)[..., :16],
    "misaligned": misaligned,
    "byte order": lambda x: x.astype(x.dtype.newbyteorder()),
}


@pytest.mark.parametrize("strided", STRIDED.values(), ids=STRIDED)
def test_strided_inputs(rng, strided):
    case = make_case(rng, batch=2, lengths=np.array([101, 50]))
    arrays = [strided(x) for x in (case.q, case.k, case.v, case.dout)]
    lengths = np.repeat(case.options["lengths"], 2)[::2]
    assert_same(Case(case.pattern, *arrays, {"lengths": lengths}).computed(), case.computed())


def test_broadcast_inputs(rng):
    """Strides of 0: one key and value head for all, and one gradient for all rows."""
    case = make_case(rng, kv_heads=1)
    apart = replace(
        case,
        k=np.broadcast_to(case.k, case.q.shape),
        v=np.broadcast_to(case.v, case.q.shape),
        dout=np.broadcast_to(case.dout[:, :1], case.q.shape),
    )
    copies = (np.ascontiguousarray(x) for x in (apart.k, apart.v, apart.dout))
    assert_same(apart.computed(), Case(case.pattern, case.q, *copies, {}).computed())


def test_tensors_come_back_for_tensors(rng):
    case = make_case(rng)
    attention = longnet.DilatedAttention(**asdict(PATTERN))
    expected = attention.forward(case.q, case.k, case.v)
    q = longnet.Tensor(case.q)
    out, lse = attention.forward(q, case.k, case.v)
    assert isinstance(out, longnet.Tensor)
    assert isinstance(lse, longnet.Tensor)
    np.testing.assert_array_equal(np.from_dlpack(out), expected[0], strict=True)
    np.testing.assert_array_equal(np.from_dlpack(lse), expected[1], strict=True)
    gradients = attention.backward(case.dout, q, case.k, case.v, out, lse)
    assert all(isinstance(x, longnet.Tensor) for x in gradients)


def test_concurrent_calls(rng):
    """Calls from several Python threads at once are each what they are alone."""
    from concurrent.futures import ThreadPoolExecutor

    cases = [make_case(rng, n=300 + 7 * i) for i in range(6)]
    expected = [case.computed() for case in cases]
    with ThreadPoolExecutor(6) as pool:
        for computed, one in zip(pool.map(Case.computed, cases), expected, strict=True):
            assert_same(computed, one)
