"""The backward kernel: see harness.py."""

import os
import sys

import torch
from harness import (
    DEVICE,
    PAPER,
    PATHOLOGY,
    POWERS,
    flops,
    median_ms,
    medians,
    sampled,
    seen,
)

HALF = torch.float16


def gradients(q, k, v, do, rows, count, scale, lse, delta):
    """The terms of pairs (rows, keys): P and dS in float64, and of a plain 16-bit implementation."""
    results = []
    for plain in (False, True):
        kind = q.dtype if plain else torch.float64
        s = (q[rows].to(kind) @ k.to(kind).T).double() * scale
        alive = lse[rows] > -torch.inf
        p = count * torch.exp(s - torch.where(alive, lse[rows], torch.inf)[:, None])
        dp = (do[rows].to(kind) @ v.to(kind).T).double()
        ds = (p * (dp - delta[rows][:, None])).to(kind)
        results.append((p.to(kind), ds))
    return results


def verify(
    kernel,
    name,
    b,
    n,
    h,
    d,
    w,
    r,
    *,
    kv_heads=None,
    dtype=torch.bfloat16,
    sample=None,
    causal=True,
    grouped=False,
    zero_keys=False,
    lengths=None,
    cu_seqlens=None,
    gain=1.0,
    scale=None,
):
    torch.manual_seed(hash(name) % 1000)
    kv_heads = kv_heads or h
    q, do = ((torch.randn(b, n, h, d, device=DEVICE) * g).to(dtype) for g in (gain, 1.0))
    k, v = (torch.randn(b, n, kv_heads, d, device=DEVICE).to(dtype) for _ in range(2))
    if lengths is not None:
        lengths = torch.tensor(lengths, device=DEVICE)
        for i, length in enumerate(lengths.tolist()):
            for x in (q, k, v, do):
                x[i, length:] = float("nan")
    cu = None if cu_seqlens is None else torch.tensor(cu_seqlens, device=DEVICE)
    scale = d**-0.5 if scale is None else scale
    options = dict(
        causal=causal,
        grouped=grouped,
        zero_keys=zero_keys,
        lengths=lengths,
        cu_seqlens=cu,
        scale=scale,
    )
    out, lse = kernel(q, k, v, w, r, **options)
    mine = kernel.backward(do, q, k, v, out, lse, w, r, **options)
    torch.cuda.synchronize()
    errors, bad = [[0.0, 0.0] for _ in range(3)], ""
    for x, which in zip(mine, ("dq", "dk", "dv")):
        if not torch.isfinite(x).all():
            bad += f" {which}: {(~torch.isfinite(x)).sum().item()} not finite"
    pairs = [(i, j) for i in range(b) for j in range(kv_heads)]
    if sample:
        pairs = [pairs[i] for i in torch.randperm(len(pairs))[:2].tolist()]
    group = h // kv_heads
    every = torch.arange(n, device=DEVICE)
    clean = [x.nan_to_num() for x in (q, k, v, do)]
    for i, j in pairs:
        keys = sampled(n, sample) if sample else every
        totals = [0.0] * 4
        for head in range(j * group, (j + 1) * group):
            qq, dd = clean[0][i, :, head], clean[3][i, :, head]
            kk, vv = clean[1][i, :, j], clean[2][i, :, j]
            full = lse[i, head].double()
            delta = (dd.double() * out[i, :, head].nan_to_num().double()).sum(-1)
            see = (i, head, h, w, r, lengths, cu_seqlens, causal, grouped, zero_keys)
            rows = sampled(n, sample) if sample else every
            count, _ = seen(rows, every, *see)
            exact, plain = gradients(qq, kk, vv, dd, rows, count, scale, full, delta)
            want = exact[1] @ kk.double() * scale
            rounded = (plain[1] @ kk).double() * scale
            note(errors[0], mine[0][i, rows, head], want, rounded)
            if sample:  # keys against all queries
                count, _ = seen(every, keys, *see)
                exact, plain = gradients(
                    qq, kk[keys], vv[keys], dd, every, count, scale, full, delta
                )
            totals[0] = totals[0] + exact[1].T @ qq.double() * scale
            totals[1] = totals[1] + (plain[1].T @ qq).double() * scale
            totals[2] = totals[2] + exact[0].T @ dd.double()
            totals[3] = totals[3] + (plain[0].T @ dd).double()
        note(errors[1], mine[1][i, keys, j], totals[0], totals[1])
        note(errors[2], mine[2][i, keys, j], totals[2], totals[3])
    good = not bad and all(e <= 2 * p + 1e-5 for e, p in errors)
    cells = "  ".join(f"{e:.2e} (plain {p:.2e})" for e, p in errors)
    print(f"{'ok  ' if good else 'FAIL'} {name:28s} dq dk dv {cells}{bad}", flush=True)
    return good


def note(worst, mine, want, plain):
    """Largest errors so far."""
    worst[0] = max(worst[0], float((mine.double() - want).abs().max()))
    worst[1] = max(worst[1], float((plain.to(mine.dtype).double() - want).abs().max()))


CASES = (
    (("one tile", 1, 64, 1, 64, (64,), (1,)), {}),
    (("one block", 1, 128, 1, 64, (128,), (1,)), {}),
    (("one segment", 1, 2048, 1, 64, (2048,), (1,)), {}),
    (("one segment full", 1, 2048, 2, 64, (2048,), (1,)), dict(causal=False)),
    (("segments", 2, 1024, 3, 64, (256,), (1,)), {}),
    (("rate 2", 1, 1024, 2, 64, (512,), (2,)), {}),
    (("two levels", 1, 1024, 2, 64, (256, 512), (1, 2)), {}),
    (("paper small", 1, 1536, 12, 64, (128, 256, 512, 1024, 1536), (1, 2, 4, 6, 12)), {}),
    (("odd", 2, 997, 5, 64, (100, 333, 5000), (1, 3, 7)), {}),
    (("odd full", 2, 997, 5, 64, (100, 333, 5000), (1, 3, 7)), dict(causal=False)),
    (("grouped", 1, 1000, 6, 64, (200, 700), (2, 4)), dict(grouped=True)),
    (("uncovered", 1, 700, 3, 64, (64, 300), (5, 9)), {}),
    (("short", 3, 5, 2, 64, (64, 300), (1, 2)), {}),
    (("single row", 1, 1, 2, 64, (64, 300), (1, 2)), {}),
    (("grouped heads", 2, 600, 8, 64, (200, 500), (1, 3)), dict(kv_heads=2)),
    (("half", 1, 1000, 4, 64, (200, 700), (1, 4)), dict(dtype=HALF)),
    (("large logits", 1, 2048, 2, 64, (2048,), (1,)), dict(gain=12.0)),
    (("lengths", 3, 800, 2, 64, (128, 500), (1, 3)), dict(lengths=(0, 333, 800))),
    (
        ("lengths full", 3, 800, 2, 64, (128, 500), (1, 3)),
        dict(lengths=(1, 333, 799), causal=False),
    ),
    (("documents", 1, 1500, 2, 64, (128, 500), (1, 3)), dict(cu_seqlens=(0, 1, 1, 300, 812, 1500))),
    (("zero keys", 1, 700, 4, 64, (64, 300), (1, 3)), dict(zero_keys=True, causal=False)),
    (("d 48", 1, 900, 4, 48, (64, 300), (1, 3)), dict(causal=False)),
    (("d 16", 1, 900, 4, 16, (64, 300), (1, 3)), {}),
    (("d 128", 1, 2048, 4, 128, (512, 2048), (1, 4)), {}),
    (("d 128 odd", 2, 997, 5, 128, (100, 333, 5000), (1, 3, 7)), {}),
    (
        ("d 128 full half", 1, 997, 5, 128, (100, 333, 5000), (1, 3, 7)),
        dict(causal=False, dtype=HALF),
    ),
    (("d 104", 1, 900, 4, 104, (64, 300), (1, 3)), {}),
    (("rate 5", 2, 1003, 7, 64, (250,), (5,)), {}),
    (("rate 4 odd rows", 1, 1003, 5, 128, (4096,), (4,)), dict(causal=False)),
    (("rate 3 odd segments", 1, 1000, 4, 64, (100,), (3,)), {}),
    (("rate 8 lengths", 3, 800, 3, 48, (200,), (8,)), dict(lengths=(0, 333, 800))),
    (("rate 4 documents", 1, 1500, 5, 64, (128,), (4,)), dict(cu_seqlens=(0, 1, 300, 812, 1500))),
    (("rate 4 grouped heads", 2, 600, 8, 64, (200,), (4,)), dict(kv_heads=2)),
    (("rate 50 of 40 rows", 1, 40, 60, 64, (64,), (50,)), {}),
    (("rate 8 groups", 2, 70000, 3, 64, (4096,), (8,)), dict(sample=48)),
    (("many groups", 4, 40000, 3, 64, (512, 2048), (1, 3)), dict(sample=48)),
    (("paper 131072", 1, 131072, 12, 64, *PAPER), dict(sample=64)),
    (("powers 131072", 1, 131072, 16, 128, *POWERS), dict(sample=64)),
    (("pathology 262144", 1, 262144, 16, 48, *PATHOLOGY), dict(sample=32, causal=False)),
)


def check(kernel):
    wanted = sys.argv[3:]
    cases = [c for c in CASES if not wanted or any(x in c[0][0] for x in wanted)]
    good = [verify(kernel, *args, **extra) for args, extra in cases]
    print("CHECK", "passed" if all(good) else "FAILED")


def dense(d, length, causal=True):
    """TFLOP/s of cuDNN's dense backward."""
    b, h = 65536 // length, 2048 // d
    sets = []
    forward = torch.ops.aten._scaled_dot_product_cudnn_attention
    backward = torch.ops.aten._scaled_dot_product_cudnn_attention_backward
    for _ in range(2):
        q, k, v, do = (
            torch.randn(b, h, length, d, device=DEVICE, dtype=torch.bfloat16) for _ in range(4)
        )
        o, lse, cq, ck, mq, mk, seed, offset, _ = forward(q, k, v, None, True, 0.0, causal, False)
        sets.append((do, q, k, v, o, lse, seed, offset, None, cq, ck, mq, mk, 0.0, causal))
    ms = median_ms([lambda s=s: backward(*s) for s in sets])
    return 2.5 * flops(b, length, h, d, (length,), (1,), causal) / ms / 1e9


def bench(kernels):
    print(torch.cuda.get_device_name())
    cases = [
        ("paper", 1, 131072, 12, 64, *PAPER, True),
        ("powers of 4", 1, 131072, 16, 128, *POWERS, True),
        ("pathology", 1, 262144, 16, 48, *PATHOLOGY, False),
        ("long 64", 1, 65536, 16, 64, (32768,), (1,), False),
        ("long 128", 1, 65536, 8, 128, (32768,), (1,), False),
    ]
    for d in (64, 128):
        for rate in (1, 4, 16):
            cases.append(
                (f"D {d} r {rate}", 1, 131072, 2048 // d // 2, d, (2048 * rate,), (rate,), True)
            )
    cases += [(f"paper {n}", max(1, 65536 // n), n, 12, 64, *PAPER, True) for n in (8192, 1 << 20)]
    only = os.environ.get("CASES")
    for d, length in ((64, 2048), (64, 8192), (128, 2048), (128, 8192)):
        print(f"dense cuDNN backward D {d} causal L {length}: {dense(d, length):.0f} TFLOP/s")
    for name, b, n, h, d, w, r, causal in cases:
        if only and not any(name.startswith(x) for x in only.split(",")):
            continue
        torch.cuda.empty_cache()
        sets = [
            [torch.randn(b, n, h, d, device=DEVICE, dtype=torch.bfloat16) for _ in range(4)]
            for _ in range(2)
        ]
        work = 2.5 * flops(b, n, h, d, w, r, causal)
        grads = [torch.empty_like(sets[0][0]) for _ in range(3)]
        saved = [(do, q, k, v, *kernels[0](q, k, v, w, r, causal=causal)) for q, k, v, do in sets]
        calls = [
            lambda *tensors, kernel=kernel, w=w, r=r, causal=causal, grads=grads: kernel.backward(
                *tensors, w, r, causal=causal, gradients=grads
            )
            for kernel in kernels
        ]
        cells = []
        for kernel, ms in zip(kernels, medians(calls, saved)):
            memory = kernel.bytes / (8 * sets[0][0].numel() * 2) * 100 if ms else 0
            cells.append(f"{ms:7.3f} ms {work / ms / 1e9:4.0f} ({memory:.1f}%)" if ms else "failed")
        print(f"{name:14s} " + " | ".join(cells), flush=True)
    print("builds:", [k.name for k in kernels])


def once(kernel, name):
    n, h, d, w, r, causal = {
        "paper": (131072, 12, 64, *PAPER, True),
        "powers": (131072, 16, 128, *POWERS, True),
        "dense64": (131072, 16, 64, (2048,), (1,), True),
    }[name]
    q, k, v, do = (torch.randn(1, n, h, d, device=DEVICE, dtype=torch.bfloat16) for _ in range(4))
    out, lse = kernel(q, k, v, w, r, causal=causal)
    for _ in range(3):
        kernel.backward(do, q, k, v, out, lse, w, r, causal=causal)
    torch.cuda.synchronize()
