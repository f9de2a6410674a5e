"""Dilated attention on a GPU where sums rest between levels and offsets leave 32 bits: sampled rows
computed in float64."""

import numpy as np
import pytest
from reference.dilated_attention import Pattern

import longnet
from longnet import Stream, Tensor

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.gpu

PAPER = Pattern((2048, 4096, 8192, 16384, 32768), (1, 2, 4, 6, 12))


@pytest.fixture(params=["sm80", "sm90"], autouse=True)
def kernels(request, monkeypatch):
    """Hopper has kernels of its own beside those of every GPU from Ampere on."""
    monkeypatch.setenv("LONGNET_CUDA_KERNELS", request.param)


def keys_of(pattern, n, row, head, heads):
    """What a query sees, a key once for every level."""
    seen = []
    for w, r in pattern.levels:
        start, s = row // w * w, pattern.head_offset(head, heads, r)
        if (row - start) % r == s:
            end = row + 1 if pattern.causal else min(n, start + w)
            seen.append(torch.arange(start + s, end, r))
    return torch.cat(seen) if seen else torch.arange(0)


def queries_of(pattern, n, row, head, heads):
    """What sees a key, likewise."""
    seen = []
    for w, r in pattern.levels:
        start, s = row // w * w, pattern.head_offset(head, heads, r)
        if (row - start) % r == s:
            seen.append(torch.arange(row if pattern.causal else start + s, min(n, start + w), r))
    return torch.cat(seen) if seen else torch.arange(0)


def run(pattern, q, k, v, dout):
    attention = longnet.DilatedAttention(
        pattern.segment_lengths, pattern.dilation_rates, pattern.causal
    )
    queue = torch.cuda.Stream()
    queue.wait_stream(torch.cuda.current_stream())
    with Stream(handle=queue.cuda_stream), torch.cuda.stream(queue):
        out, lse = attention.forward(*map(Tensor, (q, k, v)))
        gradients = attention.backward(*map(Tensor, (dout, q, k, v)), out, lse)
        results = [torch.from_dlpack(x) for x in (out, lse, *gradients)]
    queue.synchronize()
    return results


def check_rows(pattern, q, k, v, dout, rows, tolerance):
    """Every row of the results against float64, by norms."""
    n, heads, dim = q.shape[1:]
    group = heads // k.shape[2]
    out, lse, dq, dk, dv = run(pattern, q, k, v, dout)
    scale = dim**-0.5
    term = scale * dim**1.5  # about as large as what may cancel in a gradient

    def delta(i, h):
        return (dout[0, i, h].double() * out[0, i, h].double()).sum(-1)

    def far(x, y):
        return ((x.double() - y).norm() / y.norm().clamp_min(1e-30)).item()

    for row, head in rows:
        seen = keys_of(pattern, n, row, head, heads).to(q.device)
        if len(seen) == 0:
            assert not out[0, row, head].any()
            assert lse[0, head, row] == -np.inf
            assert not dq[0, row, head].any()
            continue
        kv = head // group
        keys, values = k[0, seen, kv].double(), v[0, seen, kv].double()
        s = keys @ q[0, row, head].double() * scale
        expected = torch.logsumexp(s, 0)
        assert abs(lse[0, head, row].item() - expected.item()) < 1e-4
        p = (s - expected).exp()
        assert far(out[0, row, head], p @ values) < tolerance, (row, head)
        ds = p * (values @ dout[0, row, head].double() - delta(row, head))
        right = scale * ds @ keys
        error = (dq[0, row, head].double() - right).norm()
        assert error < tolerance * right.norm() + 1e-6 * term, (row, head)
    for row, head in rows:
        kv = head // group
        right_k, right_v = torch.zeros(2, dim, dtype=torch.float64, device=q.device)
        for h in range(kv * group, (kv + 1) * group):
            seen = queries_of(pattern, n, row, h, heads).to(q.device)
            s = q[0, seen, h].double() @ k[0, row, kv].double() * scale
            p = (s - lse[0, h, seen].double()).exp()
            ds = p * (dout[0, seen, h].double() @ v[0, row, kv].double() - delta(seen, h))
            right_k += scale * ds @ q[0, seen, h].double()
            right_v += p @ dout[0, seen, h].double()
        if right_v.norm() == 0:
            assert not dk[0, row, kv].any()
            assert not dv[0, row, kv].any()
            continue
        assert far(dv[0, row, kv], right_v) < tolerance, (row, head)
        assert far(dk[0, row, kv], right_k) < 2 * tolerance, (row, head)


def samples(rng, n, heads, count):
    edges = [0, 1, 2047, 2048, n - 1, n - 2, n // 2]
    rows = edges + rng.integers(0, n, count - len(edges)).tolist()
    return [(int(row), int(rng.integers(heads))) for row in rows]


def random_tensors(n, heads, kv_heads, dim, dtype):
    return [
        torch.randn(1, n, h, dim, device="cuda", dtype=dtype)
        for h in (heads, kv_heads, kv_heads, heads)
    ]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_million_rows(rng, causal, dtype):
    torch.manual_seed(1)
    n = (1 << 20) - 77
    pattern = Pattern(PAPER.segment_lengths, PAPER.dilation_rates, causal)
    tensors = random_tensors(n, 12, 4, 32, dtype)
    tolerance = 2e-2 if dtype == torch.bfloat16 else 1e-4
    check_rows(pattern, *tensors, samples(rng, n, 12, 60), tolerance)


def test_levels_that_do_not_nest(rng):
    torch.manual_seed(2)
    n = 262144
    pattern = Pattern((1024, 5792, 32768, 185363, 1048576), (1, 2, 4, 8, 16), causal=False)
    tensors = random_tensors(n, 16, 16, 48, torch.bfloat16)
    check_rows(pattern, *tensors, samples(rng, n, 16, 60), 2e-2)


def test_beyond_2_31_elements(rng):
    torch.cuda.empty_cache()
    longnet.empty_cache("cuda")
    free = torch.cuda.mem_get_info()[0]
    if free < 60 << 30:
        pytest.skip(f"{free >> 30} GiB of GPU memory, needs 60")
    torch.manual_seed(3)
    n = (1 << 22) + 4099  # x 8 heads x 64
    pattern = Pattern((2048, 65536, 1 << 23), (1, 32, 4096))
    tensors = random_tensors(n, 8, 8, 64, torch.bfloat16)
    assert tensors[0].numel() > 2**31
    check_rows(pattern, *tensors, samples(rng, n, 8, 40), 2e-2)
