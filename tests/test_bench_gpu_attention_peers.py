"""What dilated attention is measured beside computes the same; the measurement runs on a GPU."""

import json
from argparse import ArgumentParser

import numpy as np
import pytest

torch = pytest.importorskip("torch", minversion="2.6", reason="PyTorch is not installed")

import longnet  # noqa: E402
from longnet.bench import attention  # noqa: E402
from longnet.bench.gpu_attention import contenders, measure, peers, timing  # noqa: E402
from longnet.bench.gpu_attention.composition import composition  # noqa: E402
from longnet.bench.gpu_attention.shapes import GROUPS, Entry, Shape  # noqa: E402

SHAPES = {
    "causal": Shape(2, 96, 4, 16, (16, 48), (1, 3)),
    "bidirectional": Shape(1, 100, 3, 16, (16, 40, 4096), (1, 4, 5), causal=False),
}


def scores(q, k, causal):
    s = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    seen = torch.ones(s.shape[-2:], dtype=torch.bool).tril()
    return s.masked_fill(~seen, -torch.inf) if causal else s


def plain(q, k, v, causal):
    """A kernel for a CPU."""
    s = scores(q, k, causal)
    return s.softmax(-1) @ v, s.logsumexp(-1)


def plain_gradients(dout, q, k, v, out, lse, causal):
    p = torch.exp(scores(q, k, causal) - lse[..., None])
    ds = p * (dout @ v.transpose(-1, -2) - (dout * out).sum(-1, keepdim=True))
    ds /= q.shape[-1] ** 0.5
    return ds @ k, ds.transpose(-1, -2) @ q, p.transpose(-1, -2) @ dout


def tensors(rng, shape, **options):
    size = shape.batch, shape.tokens, shape.heads, shape.dim
    arrays = [rng.standard_normal(size, dtype=np.float32) for _ in range(4)]
    dout, *qkv = (torch.from_numpy(x).to(**options) for x in arrays)
    return dout, [x.requires_grad_() for x in qkv]


def expected(shape, dout, qkv, **options):
    """Out, dq, dk and dv in float32 on the CPU."""
    levels = shape.segment_lengths, shape.dilation_rates, shape.causal
    pattern = longnet.DilatedAttention(*levels, **options)
    arrays = [x.detach().float().cpu().numpy() for x in (dout, *qkv)]
    out, lse = pattern.forward(*arrays[1:])
    return out, *pattern.backward(*arrays, out, lse)


def check(attend, dout, qkv, wanted, tolerance):
    out = attend(*qkv)
    found = out, *torch.autograd.grad(out, qkv, dout)
    for x, y in zip(found, wanted, strict=True):
        error = np.linalg.norm(x.detach().float().cpu().numpy() - y)
        assert error < tolerance * np.linalg.norm(y)


@pytest.mark.parametrize("name", SHAPES)
def test_composition(rng, name):
    dout, qkv = tensors(rng, SHAPES[name])
    attend = composition(SHAPES[name], plain, plain_gradients)
    check(attend, dout, qkv, expected(SHAPES[name], dout, qkv), 1e-5)


def test_torchscale(rng):
    pytest.importorskip("torchscale")
    dout, qkv = tensors(rng, SHAPES["causal"])
    wanted = expected(SHAPES["causal"], dout, qkv, offsets="grouped", gradient="detached")
    check(peers.torchscale(SHAPES["causal"], plain), dout, qkv, wanted, 1e-5)


@pytest.fixture
def gpu():
    if not torch.cuda.is_available():
        pytest.skip("PyTorch sees no GPU")


# cuDNN takes head dims and rows in steps of 8
WIDE = Shape(2, 384, 4, 64, (64, 192), (1, 3))


@pytest.mark.gpu
@pytest.mark.parametrize("causal", [True, False])
def test_peers_of_a_gpu(rng, gpu, causal):
    shape = Shape(2, 384, 4, 64, (64, 192), (1, 3), causal)
    options = {"device": "cuda", "dtype": torch.bfloat16}
    dout, qkv = tensors(rng, shape, **options)
    check(composition(shape), dout, qkv, expected(shape, dout, qkv), 2e-2)
    whole = shape.dense(384)
    wanted = expected(whole, dout, qkv)
    for kernel in (peers.cudnn, peers.flash):

        def attend(q, k, v, kernel=kernel):
            heads_first = [x.transpose(1, 2) for x in (q, k, v)]
            return peers.dense(whole, kernel)(*heads_first).transpose(1, 2)

        check(attend, dout, qkv, wanted, 2e-2)


@pytest.mark.gpu
def test_torchscale_of_a_gpu(rng, gpu):
    pytest.importorskip("torchscale")
    dout, qkv = tensors(rng, WIDE, device="cuda", dtype=torch.bfloat16)
    wanted = expected(WIDE, dout, qkv, offsets="grouped", gradient="detached")
    check(peers.torchscale(WIDE, peers.cudnn), dout, qkv, wanted, 2e-2)


def shrunk(entry):
    return Entry(entry.name, entry.implementation, entry.shape.shrunk(64), entry.steps)


@pytest.mark.gpu
def test_the_whole_measurement_with_short_sequences(gpu, monkeypatch, tmp_path, capsys):
    groups = {name: [[shrunk(x) for x in run] for run in runs] for name, runs in GROUPS.items()}
    monkeypatch.setattr(measure, "GROUPS", groups)
    parser = ArgumentParser()
    attention.add_arguments(parser)
    options = parser.parse_args(["--device", "cuda", "--repeats", "2", "--save", str(tmp_path)])
    assert attention.run(options) == 0
    text = (tmp_path / "attention_cuda.txt").read_text()
    assert capsys.readouterr().out == text
    header, *records = map(json.loads, (tmp_path / "attention_cuda.jsonl").open())
    assert {"date", "command", "gpu", "driver", "cuda", "torch", "cudnn"} <= set(header)
    rows = [x for x in records if "steps" in x]
    assert len(rows) == sum(len(run) for runs in GROUPS.values() for run in runs)
    for row in rows:
        for step in row["steps"].values():
            if row["implementation"] == "longnet":
                assert step["error"] is None
            if step["error"] is None:
                assert step["tflops"] > 0
                assert step["repeats"] == 2
                assert step["extra_bytes"] >= 0


@pytest.mark.gpu
def test_what_fails_becomes_a_cell(gpu, monkeypatch):
    def broken(q, k, v):
        raise torch.OutOfMemoryError("asked 5, free 4")

    huge = Shape(1 << 20, 2048, 12, 64, (2048,), (1,))  # 3 TB each of q, k and v
    small = Shape(2, 64, 2, 64, (32,), (1,))
    with timing.queue():
        found = timing.Run(
            [
                (lambda: contenders.Peer(small, lambda shape: broken), ("forward",)),
                (lambda: contenders.Longnet(huge), ("forward",)),
                (lambda: contenders.Longnet(small), ("forward", "backward")),
            ]
        ).measure(2)
    assert found[0]["forward"].error == "OutOfMemoryError: asked 5, free 4"
    assert "OutOfMemory" in found[1]["forward"].error
    assert all(found[2][step].ms > 0 for step in ("forward", "backward"))
