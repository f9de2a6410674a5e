"""The forward kernel: see harness.py."""

import os
import sys

import torch
from harness import DEVICE, PAPER, PATHOLOGY, POWERS, flops, medians, sampled, seen


def reference(q, k, v, rows, count, zeros, scale):
    """Float64 output and LSE of rows of one head, and those of a plain 16-bit implementation."""
    results = []
    for plain in (False, True):
        kind = q.dtype if plain else torch.float64
        s = (q[rows].to(kind) @ k.to(kind).T).double() * scale
        s = torch.where(count > 0, s + count.log(), -torch.inf)
        if zeros.any():
            s = torch.cat((s, zeros.log()[:, None]), 1)
        lse = torch.logsumexp(s, 1)
        p = torch.exp(s - torch.where(lse == -torch.inf, 0, lse)[:, None])[:, : k.shape[0]]
        live = count.sum(0) > 0 if plain else slice(None)
        o = p[:, live].to(kind) @ v[live].to(kind)
        results += [o.double(), lse]
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
    q = (torch.randn(b, n, h, d, device=DEVICE) * gain).to(dtype)
    k, v = (torch.randn(b, n, kv_heads, d, device=DEVICE).to(dtype) for _ in range(2))
    if lengths is not None:
        lengths = torch.tensor(lengths, device=DEVICE)
        for i, length in enumerate(lengths.tolist()):
            for x in (q, k, v):
                x[i, length:] = float("nan")
    cu = None if cu_seqlens is None else torch.tensor(cu_seqlens, device=DEVICE)
    scale = d**-0.5 if scale is None else scale
    out, lse = kernel(
        q,
        k,
        v,
        w,
        r,
        causal=causal,
        grouped=grouped,
        zero_keys=zero_keys,
        lengths=lengths,
        cu_seqlens=cu,
        scale=scale,
    )
    torch.cuda.synchronize()
    worst = [0.0] * 4
    square = [0.0, 0.0]
    pairs = [(i, j) for i in range(b) for j in range(h)]
    if sample:
        pairs = [pairs[i] for i in torch.randperm(len(pairs))[:4].tolist()]
    bad = ""
    if sample and (out.isnan().any() or lse.isnan().any()):
        bad = f"NaN {out.isnan().any(-1).sum().item()} {lse.isnan().sum().item()}"
    for i, j in pairs:
        keys = torch.arange(n, device=DEVICE)
        rows = sampled(n, sample) if sample else keys
        count, zeros = seen(
            rows, keys, i, j, h, w, r, lengths, cu_seqlens, causal, grouped, zero_keys
        )
        kk, vv = (x[i, :, j // (h // kv_heads)].nan_to_num() for x in (k, v))
        qq = q[i, :, j].nan_to_num()
        o, l, po, pl = reference(qq, kk, vv, rows, count, zeros, scale)
        mine, mine_l = out[i, rows, j].double(), lse[i, j, rows].double()
        dead = l == -torch.inf
        if (mine_l[dead] != -torch.inf).any() or (mine[dead] != 0).any():
            bad += f" uncovered rows not zero ({i},{j})"
        if not torch.isfinite(mine).all() or not torch.isfinite(mine_l[~dead]).all():
            where = (~torch.isfinite(mine).all(1)).nonzero()[:3, 0].tolist()
            bad += f" not finite ({i},{j}) rows {rows[where].tolist()}"
            continue
        for at, x in enumerate(
            (
                (mine - o).abs().max(),
                (po - o).abs().max(),
                (mine_l - l)[~dead].abs().max() if (~dead).any() else 0.0,
                (pl - l)[~dead].abs().max() if (~dead).any() else 0.0,
            )
        ):
            worst[at] = max(worst[at], float(x))
        square[0] += float(((mine - o) ** 2).mean())
        square[1] += float(((po - o) ** 2).mean())
    ratio = (square[0] / max(square[1], 1e-30)) ** 0.5
    good = not bad and worst[0] <= 2 * worst[1] + 1e-5 and worst[2] <= 2 * worst[3] + 1e-4
    print(
        f"{'ok  ' if good else 'FAIL'} {name:34s} O max {worst[0]:.2e} (plain {worst[1]:.2e}, rms x"
        f"{ratio:.2f})  LSE {worst[2]:.1e} (plain {worst[3]:.1e}){bad}",
        flush=True,
    )
    return good


def check(kernel):
    good = True
    half = torch.float16
    for args, extra in (
        (("one tile", 1, 64, 1, 64, (64,), (1,)), {}),
        (("one segment", 1, 2048, 1, 64, (2048,), (1,)), {}),
        (("one segment full", 1, 2048, 2, 64, (2048,), (1,)), dict(causal=False)),
        (("segments", 2, 1024, 3, 64, (256,), (1,)), {}),
        (("rate 2", 1, 1024, 2, 64, (512,), (2,)), {}),
        (("two levels", 1, 1024, 2, 64, (256, 512), (1, 2)), {}),
        (("paper small", 1, 1536, 12, 64, (128, 256, 512, 1024, 1536), (1, 2, 4, 6, 12)), {}),
        (
            ("paper full", 1, 1536, 12, 64, (128, 256, 512, 1024, 1536), (1, 2, 4, 6, 12)),
            dict(causal=False),
        ),
        (("odd", 2, 997, 5, 64, (100, 333, 5000), (1, 3, 7)), {}),
        (("odd full", 2, 997, 5, 64, (100, 333, 5000), (1, 3, 7)), dict(causal=False)),
        (("grouped", 1, 1000, 6, 64, (200, 700), (2, 4)), dict(grouped=True)),
        (("uncovered", 1, 700, 3, 64, (64, 300), (5, 9)), {}),
        (("uncovered, one level", 2, 700, 5, 64, (300,), (7,)), {}),
        (("uncovered, many heads", 1, 500, 40, 48, (64, 300), (3, 45)), dict(causal=False)),
        (("uncovered, grouped", 1, 500, 40, 128, (200,), (3,)), dict(grouped=True)),
        (("uncovered, rate past rows", 2, 40, 70, 16, (300,), (64,)), {}),
        (
            ("uncovered, documents", 1, 900, 4, 64, (128,), (3,)),
            dict(cu_seqlens=(0, 1, 1, 300, 512, 900)),
        ),
        (("uncovered, lengths", 3, 800, 4, 64, (128, 500), (3, 6)), dict(lengths=(0, 333, 800))),
        (("one level, pieces", 1, 5000, 2, 64, (1024,), (1,)), {}),
        (("one level, long", 1, 40000, 2, 64, (30000,), (3,)), dict(sample=64)),
        (("short", 3, 5, 2, 64, (64, 300), (1, 2)), {}),
        (("single row", 1, 1, 2, 64, (64, 300), (1, 2)), {}),
        (("grouped heads", 2, 600, 8, 64, (200, 500), (1, 3)), dict(kv_heads=2)),
        (("half", 1, 1000, 4, 64, (200, 700), (1, 4)), dict(dtype=half)),
        (("large logits", 1, 2048, 2, 64, (2048,), (1,)), dict(gain=12.0)),
        (("huge logits", 1, 2048, 2, 64, (2048, 2048), (1, 2)), dict(gain=200.0)),
        (("half large logits", 1, 2048, 2, 64, (2048,), (1,)), dict(gain=12.0, dtype=half)),
        (("negative scale", 1, 600, 2, 64, (256,), (1,)), dict(scale=-0.2)),
        (("lengths", 3, 800, 2, 64, (128, 500), (1, 3)), dict(lengths=(0, 333, 800))),
        (
            ("lengths full", 3, 800, 2, 64, (128, 500), (1, 3)),
            dict(lengths=(1, 333, 799), causal=False),
        ),
        (
            ("documents", 1, 1500, 2, 64, (128, 500), (1, 3)),
            dict(cu_seqlens=(0, 1, 1, 300, 812, 1500)),
        ),
        (("zero keys", 1, 700, 4, 64, (64, 300), (1, 3)), dict(zero_keys=True, causal=False)),
        (("d 48", 1, 900, 4, 48, (64, 300), (1, 3)), dict(causal=False)),
        (("d 16", 1, 900, 4, 16, (64, 300), (1, 3)), {}),
        (("d 128", 1, 2048, 4, 128, (512, 2048), (1, 4)), {}),
        (("d 128 odd", 2, 997, 5, 128, (100, 333, 5000), (1, 3, 7)), {}),
        (
            ("d 128 full half", 1, 997, 5, 128, (100, 333, 5000), (1, 3, 7)),
            dict(causal=False, dtype=half),
        ),
        (("d 128 large logits", 1, 2048, 2, 128, (2048, 2048), (1, 2)), dict(gain=12.0)),
        (("d 104", 1, 900, 4, 104, (64, 300), (1, 3)), {}),
        (("paper 131072", 1, 131072, 12, 64, *PAPER), dict(sample=64)),
        (("powers 131072", 1, 131072, 16, 128, *POWERS), dict(sample=64)),
        (("pathology 262144", 1, 262144, 16, 48, *PATHOLOGY), dict(sample=32, causal=False)),
    ):
        if len(sys.argv) > 3 and not any(x in args[0] for x in sys.argv[3:]):
            continue
        good &= verify(kernel, *args, **extra)
    q, k, v = (torch.randn(1, 16384, 12, 64, device=DEVICE, dtype=torch.bfloat16) for _ in range(3))
    first = kernel(q, k, v, *PAPER)
    same = all(torch.equal(a, b) for _ in range(5) for a, b in zip(first, kernel(q, k, v, *PAPER)))
    print("same bits in repeats:", same)
    print("CHECK", "passed" if good and same else "FAILED")


def dense(d, length, causal=True):
    b, h = 65536 // length, 2048 // d
    sets = [
        [torch.randn(b, h, length, d, device=DEVICE, dtype=torch.bfloat16) for _ in range(3)]
        for _ in range(3)
    ]
    op = torch.ops.aten._scaled_dot_product_cudnn_attention
    (ms,) = medians([lambda q, k, v: op(q, k, v, None, True, 0.0, causal, False)], sets)
    return flops(b, length, h, d, (length,), (1,), causal) / ms / 1e9


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
        for rate in (1, 2, 4, 8, 16, 64):
            cases.append(
                (f"D {d} r {rate}", 1, 131072, 2048 // d // 2, d, (2048 * rate,), (rate,), True)
            )
        cases.append((f"D {d} r 16 full", 1, 131072, 1024 // d, d, (32768,), (16,), False))
    cases += [
        (f"paper {n}", max(1, 65536 // n), n, 12, 64, *PAPER, True) for n in (8192, 32768, 1 << 20)
    ]
    only = os.environ.get("CASES")
    rows = []
    for d, length in ((64, 2048), (64, 8192), (128, 2048), (128, 8192)):
        rows.append(f"dense cuDNN D {d} causal L {length}: {dense(d, length):.0f} TFLOP/s")
        print(rows[-1], flush=True)
    for name, b, n, h, d, w, r, causal in cases:
        if only and not any(name.startswith(x) for x in only.split(",")):
            continue
        torch.cuda.empty_cache()
        sets = [
            [torch.randn(b, n, h, d, device=DEVICE, dtype=torch.bfloat16) for _ in range(3)]
            for _ in range(2)
        ]
        out, lse = torch.empty_like(sets[0][0]), torch.empty(b, h, n, device=DEVICE)
        work = flops(b, n, h, d, w, r, causal)
        calls = [
            lambda q, k, v, kernel=kernel, w=w, r=r, causal=causal, out=out, lse=lse: kernel(
                q, k, v, w, r, causal=causal, out=out, lse=lse
            )
            for kernel in kernels
        ]
        cells = []
        for kernel, ms in zip(kernels, medians(calls, sets)):
            memory = kernel.bytes / (4 * q_bytes(sets[0][0])) * 100 if ms else 0
            cells.append(f"{ms:7.3f} ms {work / ms / 1e9:4.0f} ({memory:.1f}%)" if ms else "failed")
        rows.append(f"{name:14s} " + " | ".join(cells))
        print(rows[-1], flush=True)
    print("builds:", [k.name for k in kernels])


def once(kernel, name):
    """A few launches, for a profiler."""
    n, h, d, w, r, causal = {
        "paper": (131072, 12, 64, *PAPER, True),
        "powers": (131072, 16, 128, *POWERS, True),
        "dense64": (131072, 16, 64, (2048,), (1,), True),
        "sparse64": (131072, 16, 64, (32768,), (16,), True),
        "long64": (131072, 16, 64, (32768,), (1,), False),
        "long128": (131072, 8, 128, (32768,), (1,), False),
    }[name]
    q, k, v = (torch.randn(1, n, h, d, device=DEVICE, dtype=torch.bfloat16) for _ in range(3))
    for _ in range(3):
        kernel(q, k, v, w, r, causal=causal)
    torch.cuda.synchronize()


def q_bytes(q):
    return q.numel() * q.element_size()
