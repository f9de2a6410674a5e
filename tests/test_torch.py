"""longnet.torch.dilated_attention against float64: values, gradients, dtypes, bad input."""

from dataclasses import asdict

import numpy as np
import pytest
from attention_cases import random_case
from reference.dilated_attention import Pattern, visible

torch = pytest.importorskip("torch", minversion="2.6", reason="PyTorch is not installed")

import longnet  # noqa: E402
from longnet.torch import dilated_attention  # noqa: E402

LEVELS = Pattern((8, 24), (1, 3))
ATTENTION = torch.ops.longnet.dilated_attention.default
BACKWARD = torch.ops.longnet.dilated_attention_backward.default


def tensors(rng, n=37, heads=4, kv_heads=4, dim=16, batch=2, dtype=None, grad=True):
    """Q, k, v of random numbers."""
    shapes = [(batch, n, h, dim) for h in (heads, kv_heads, kv_heads)]
    made = [torch.from_numpy(rng.standard_normal(s, dtype=np.float32)).to(dtype) for s in shapes]
    return [x.requires_grad_(grad) for x in made]


def like(x, rng):
    return torch.from_numpy(rng.standard_normal(x.shape, dtype=np.float32)).to(x.dtype)


def naive(pattern, q, k, v):
    """The definition in a few of PyTorch's own functions, in the dtype of q."""
    heads, group = q.shape[2], q.shape[2] // k.shape[2]
    counts = np.stack([visible(pattern, q.shape[1], h, heads) for h in range(heads)])
    k, v = (x.repeat_interleave(group, dim=2) for x in (k, v))
    s = torch.einsum("bnhd,bmhd->bhnm", q, k) * q.shape[3] ** -0.5
    s = s + torch.from_numpy(counts).to(s.dtype).log()
    covered = torch.from_numpy(counts.any(axis=2))
    s = torch.where(covered[..., None], s, 0.0)
    out = torch.einsum("bhnm,bmhd->bnhd", s.softmax(dim=3), v)
    return torch.where(covered.T[..., None], out, 0.0)


def with_gradients(function, inputs, dout):
    """What the function makes of its inputs, and their gradients."""
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    out = function(*inputs)
    return out.detach(), *torch.autograd.grad(out, inputs, dout)


def error(computed, expected):
    return ((computed.double() - expected).abs().max() / expected.abs().max()).item()


@pytest.mark.parametrize("seed", range(60))
def test_random_configurations(seed):
    """Every option, against the reference in NumPy."""
    case = random_case(seed)
    options = dict(case.options)
    for name in {"lengths", "cu_seqlens"} & options.keys():
        options[name] = torch.from_numpy(options[name])
    inputs = [torch.from_numpy(x).requires_grad_() for x in (case.q, case.k, case.v)]
    out, lse = dilated_attention(*inputs, **asdict(case.pattern), **options, return_lse=True)
    gradients = torch.autograd.grad(out, inputs, torch.from_numpy(case.dout))
    computed = tuple(x.detach().numpy() for x in (out, lse, *gradients))
    errors = case.errors(computed, case.expected())
    assert max(errors.values()) <= 1e-5, f"{case} {errors}"


@pytest.mark.parametrize("offsets", ["interleaved", "grouped"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_against_torch_in_float64(rng, offsets, causal, kv_heads):
    pattern = Pattern((5, 16, 24), (1, 4, 3), causal, offsets)
    inputs = tensors(rng, kv_heads=kv_heads)
    dout = like(inputs[0], rng)
    computed = with_gradients(lambda *x: dilated_attention(*x, **asdict(pattern)), inputs, dout)
    doubles = [x.double() for x in inputs]
    expected = with_gradients(lambda *x: naive(pattern, *x), doubles, dout.double())
    for mine, theirs in zip(computed, expected, strict=True):
        assert error(mine, theirs) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(rng, dtype):
    """At most twice the error of the definition computed by PyTorch in the same dtype."""
    inputs = tensors(rng, n=131, dim=32, dtype=dtype)
    dout = like(inputs[0], rng)
    attention = with_gradients(lambda *x: dilated_attention(*x, **asdict(LEVELS)), inputs, dout)
    plain = with_gradients(lambda *x: naive(LEVELS, *x), inputs, dout)
    doubles = [x.double() for x in inputs]
    exact = with_gradients(lambda *x: naive(LEVELS, *x), doubles, dout.double())
    for mine, theirs, true in zip(attention, plain, exact, strict=True):
        assert mine.dtype == dtype
        assert error(mine, true) <= 2 * error(theirs, true)


@pytest.mark.parametrize(
    ("batch", "options"),
    [
        (2, {}),
        (2, {"offsets": "grouped", "causal": False, "zero_keys": True, "scale": 0.3}),
        (2, {"dropout": 0.4, "seed": 5}),
        (2, {"lengths": torch.tensor([37, 11])}),
        (1, {"cu_seqlens": torch.tensor([0, 6, 6, 37], dtype=torch.int32)}),
    ],
    ids=["causal", "zero keys", "dropout", "lengths", "documents"],
)
def test_finite_differences(rng, batch, options):
    inputs = tensors(rng, batch=batch, kv_heads=2)
    weight = like(inputs[0], rng).double()

    def loss(*x):
        return (dilated_attention(*x, (8, 24), (1, 3), **options).double() * weight).sum()

    gradients = torch.autograd.grad(loss(*inputs), inputs)
    step = 1e-2
    for i, gradient in enumerate(gradients):
        direction = like(gradient, rng)
        ends = [
            loss(*(x + sign * step * direction if j == i else x for j, x in enumerate(inputs)))
            for sign in (1, -1)
        ]
        slope = ((ends[0] - ends[1]) / (2 * step)).item()
        along = (gradient.double() * direction).sum().item()
        size = (gradient.double().norm() * direction.double().norm()).item()
        assert abs(slope - along) < 1e-4 * size


OPTIONS = (True, "interleaved", "exact", False, None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["plain", "dropout and lengths", "strided"])
def test_opcheck(rng, dtype, kind):
    q, k, v = tensors(rng, n=19, kv_heads=2, dtype=dtype)
    if kind == "strided":
        q, k, v = (
            x.detach().flip(3).transpose(1, 2).contiguous().transpose(1, 2) for x in (q, k, v)
        )
        q, k, v = (x.requires_grad_() for x in (q, k, v))
    more = (0.0, None, None, None)
    if kind == "dropout and lengths":
        more = (0.3, torch.tensor(-7), torch.tensor([19, 8]), None)
    options = ((8, 24), (1, 3), *OPTIONS, *more)
    torch.library.opcheck(ATTENTION, (q, k, v, *options))
    q, k, v = (x.detach() for x in (q, k, v))
    out, lse = ATTENTION(q, k, v, *options)
    torch.library.opcheck(BACKWARD, (like(out, rng), q, k, v, out, lse, *options))


def test_strided_inputs_and_gradients(rng):
    """Views of one projection, and a gradient that is expanded from a number."""
    joint = like(torch.empty(2, 37, 3, 4, 16), rng).requires_grad_()
    dilated_attention(*joint.unbind(2), (8, 24), (1, 3)).sum().backward()
    apart = [x.detach().contiguous().requires_grad_() for x in joint.unbind(2)]
    out = dilated_attention(*apart, (8, 24), (1, 3))
    out.backward(torch.ones_like(out))
    assert torch.equal(joint.grad, torch.stack([x.grad for x in apart], dim=2))


def test_odd_addresses(rng):
    q, k, v = tensors(rng, grad=False)
    moved = torch.cat([q.new_zeros(1), q.flatten()])[1:].view(q.shape)
    assert moved.data_ptr() % 16 != 0
    expected = dilated_attention(q, k, v, [8], [2])
    assert torch.equal(dilated_attention(moved, k, v, [8], [2]), expected)


def test_gradient_of_one_input(rng):
    q, k, v = tensors(rng)
    dout = like(q, rng)
    *_, expected = torch.autograd.grad(dilated_attention(q, k, v, [8], [2]), [q, k, v], dout)
    out = dilated_attention(q.detach(), k.detach(), v, [8], [2])
    (dv,) = torch.autograd.grad(out, v, dout)
    assert torch.equal(dv, expected)


def test_memory_is_torchs_and_inputs_stay(rng):
    q, k, v = tensors(rng, grad=False)
    before = [x.clone() for x in (q, k, v)]
    out, lse = dilated_attention(q, k, v, [8], [1], return_lse=True)
    out.zero_()
    assert (lse.dtype, lse.shape) == (torch.float32, (2, 4, 37))
    assert all(torch.equal(x, y) for x, y in zip((q, k, v), before, strict=True))


@pytest.mark.parametrize(("batch", "n"), [(0, 5), (2, 0), (2, 1)])
def test_small_and_empty(rng, batch, n):
    q, k, v = tensors(rng, n=n, batch=batch)
    out = dilated_attention(q, k, v, [8], [1])
    assert torch.equal(out, v)  # a query that sees itself alone
    out.sum().backward()
    assert v.grad.shape == v.shape


def test_lse_carries_no_gradient(rng):
    out, lse = dilated_attention(*tensors(rng), [8], [1], return_lse=True)
    assert out.requires_grad
    assert not lse.requires_grad


def test_second_derivatives_are_refused(rng):
    q, k, v = tensors(rng)
    out = dilated_attention(q, k, v, [8], [1])
    (dq,) = torch.autograd.grad(out.square().sum(), q, create_graph=True)
    with pytest.raises(NotImplementedError, match="second derivatives are not implemented"):
        dq.sum().backward()


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of PyTorch's own code
def test_forward_mode_is_refused(rng):
    q, k, v = tensors(rng, grad=False)
    with pytest.raises(NotImplementedError, match="k has a tangent"):
        torch.func.jvp(lambda k: dilated_attention(q, k, v, [8], [1]), (k,), (k,))


@pytest.mark.parametrize(
    ("change", "expected", "message"),
    [
        ({"q": np.zeros((2, 37, 4, 16), np.float32)}, longnet.DTypeError, "q: ndarray, expected a"),
        ({"k": torch.zeros(2, 37, 4)}, longnet.ShapeError, "k: 3 dimensions, expected 4"),
        ({"v": torch.zeros(2, 37, 4, 16).double()}, longnet.DTypeError, "v: torch.float64, exp"),
        ({"k": torch.zeros(2, 37, 4, 16).half()}, longnet.DTypeError, "k: dtype float16, expected"),
        ({"k": torch.zeros(2, 37, 3, 16)}, longnet.ShapeError, "k: 3 heads, q has 4"),
        (dict.fromkeys("kv", torch.zeros(2, 38, 4, 16)), longnet.ShapeError, "k: 38 rows, exp"),
        ({"v": torch.zeros(2, 36, 4, 16)}, longnet.ShapeError, r"v: shape \(2, 36, 4, 16\)"),
        ({"segment_lengths": [8, 9]}, longnet.ConfigError, "2 segment lengths and 1 dilation"),
        ({"offsets": "odd"}, longnet.ConfigError, "offsets 'odd', expected 'interleaved'"),
        ({"dropout": 1.0}, longnet.ConfigError, "dropout 1, expected 0 <= dropout < 1"),
        ({"dropout": 0.1, "seed": 2**64}, longnet.ConfigError, "seed: 18446744073709551616, exp"),
        ({"lengths": [37, 2]}, longnet.DTypeError, "lengths: list, expected a torch.Tensor"),
        ({"lengths": torch.ones(2)}, longnet.DTypeError, "lengths: torch.float32, expected int64"),
        ({"lengths": torch.tensor([1, 38])}, longnet.ConfigError, r"lengths\[1\] is 38, expected"),
        ({"cu_seqlens": torch.tensor([0, 37])}, longnet.ShapeError, "expected a batch of 1"),
    ],
)
def test_bad_input(rng, change, expected, message):
    q, k, v = tensors(rng)
    call = {"q": q, "k": k, "v": v, "segment_lengths": [8], "dilation_rates": [1], **change}
    with pytest.raises(expected, match=message):
        dilated_attention(**call)
