"""The kernels against float64 and against dense cuDNN, on one GPU. `check`, `bench` and `once` are
forward; with `backward` before them, backward.

    python3 cuda/dev/harness.py check LIB [NAME..] small cases in full, large ones by sampled rows
    python3 cuda/dev/harness.py bench LIB...       times; several builds side by side, CASES=name,...
                                                   chooses cases by how their names begin
    python3 cuda/dev/harness.py once LIB CASE      a few launches, for a profiler

Percentages are the scratch over q, k, v and o.
"""

import ctypes
import importlib
import os
import sys

import torch

DEVICE = "cuda"
PAPER = ((2048, 4096, 8192, 16384, 32768), (1, 2, 4, 6, 12))
POWERS = ((2048, 8192, 32768, 131072), (1, 4, 16, 64))
PATHOLOGY = ((1024, 5792, 32768, 185363, 1048576), (1, 2, 4, 8, 16))


class Kernel:
    """One build of the library."""

    def __init__(self, path):
        self.name = os.path.basename(path)
        self.library = ctypes.CDLL(os.path.abspath(path))
        self.library.dev_message.restype = ctypes.c_char_p
        self.library.dev_scratch.restype = ctypes.c_int64

    def __call__(self, q, k, v, w, r, *, out=None, lse=None, **options):
        b, n, h, _ = q.shape
        out = torch.full_like(q, float("nan")) if out is None else out
        lse = torch.full((b, h, n), float("nan"), device=q.device) if lse is None else lse
        self.call(self.library.dev_forward, (out, lse, q, k, v), q, k, w, r, **options)
        return out, lse

    def backward(self, dout, q, k, v, out, lse, w, r, *, gradients=None, **options):
        if gradients is None:
            gradients = [torch.full_like(x, float("nan")) for x in (q, k, v)]
        tensors = (*gradients, dout, q, k, v, out, lse)
        self.call(self.library.dev_backward, tensors, q, k, w, r, **options)
        return gradients

    def call(
        self,
        function,
        tensors,
        q,
        k,
        w,
        r,
        *,
        causal=True,
        grouped=False,
        zero_keys=False,
        scale=None,
        lengths=None,
        cu_seqlens=None,
    ):
        b, n, h, d = q.shape
        documents = 0 if cu_seqlens is None else len(cu_seqlens) - 1
        sizes = (ctypes.c_int64 * 11)(
            b,
            n,
            h,
            k.shape[2],
            d,
            len(w),
            grouped,
            causal,
            zero_keys,
            q.dtype == torch.bfloat16,
            documents,
        )
        lists = [(ctypes.c_int64 * len(x))(*x) for x in (w, r)]
        pointer = lambda t: ctypes.c_void_p(None if t is None else t.data_ptr())
        scale = d**-0.5 if scale is None else scale
        status = function(
            *(pointer(x) for x in tensors),
            sizes,
            *lists,
            ctypes.c_double(scale),
            pointer(lengths),
            pointer(cu_seqlens),
            ctypes.c_void_p(torch.cuda.current_stream().cuda_stream),
        )
        if status:
            raise RuntimeError(self.library.dev_message().decode())
        self.bytes = self.library.dev_scratch()


def multiplicity(rows, m, head, heads, w, r, causal, grouped, zero_keys, begin, end):
    """How often rows (R,) of a sequence begin..end see each of keys m, and keys of zeros."""
    count = torch.zeros(len(rows), len(m), dtype=torch.float64, device=DEVICE)
    zeros = torch.zeros(len(rows), dtype=torch.float64, device=DEVICE)
    alive = (rows >= begin) & (rows < end)
    for wi, ri in zip(w, r):
        wi = max(min(wi, end - begin), 1)
        s = head // -(-heads // ri) if grouped else head % ri
        pr, pm = rows - begin, m - begin
        on = alive & (pr % wi % ri == s)
        key = (pm >= 0) & (m < end) & (pm % wi % ri == s)
        same = (pr // wi)[:, None] == (pm // wi)[None]
        see = on[:, None] & key[None] & same
        if causal:
            see &= m[None] <= rows[:, None]
        count += see
        if zero_keys and not causal:
            real = torch.minimum(torch.full_like(pr, wi), end - begin - pr // wi * wi)
            have = (real - s + ri - 1).clamp(min=0) // ri
            zeros += torch.where(on, -(-wi // ri) - have, 0)
    return count, zeros


def seen(rows, keys, item, head, heads, w, r, lengths, cu_seqlens, *options):
    """Likewise over all sequences of a batch item."""
    n = int(keys.max()) + 1 if len(keys) else 0
    spans = [(0, max(n, int(rows.max()) + 1) if lengths is None else int(lengths[item]))]
    if cu_seqlens is not None:
        spans = list(zip(cu_seqlens[:-1], cu_seqlens[1:]))
    count = zeros = 0
    for begin, end in spans:
        c, z = multiplicity(rows, keys, head, heads, w, r, *options, begin, end)
        count, zeros = count + c, zeros + z
    return count, zeros


def sampled(n, count):
    rows = torch.randint(n, (count,), device=DEVICE)
    rows[0], rows[1] = 0, n - 1
    return rows


def median_ms(calls, reps=20):
    for call in calls:
        call()
    torch.cuda.synchronize()
    times = []
    for i in range(reps):
        a, b = torch.cuda.Event(True), torch.cuda.Event(True)
        a.record()
        calls[i % len(calls)]()
        b.record()
        b.synchronize()
        times.append(a.elapsed_time(b))
    return sorted(times)[len(times) // 2]


def medians(contenders, sets, reps=20):
    """Milliseconds of each, all in turn on each set of inputs; None of one that fails.

    The GPU is kept busy before each call: the host's part of it is not measured.
    """
    times = [[] for _ in contenders]
    for rep in range(-2, reps):
        for call, mine in zip(contenders, times):
            begin, end = torch.cuda.Event(True), torch.cuda.Event(True)
            torch.cuda._sleep(600_000)
            begin.record()
            try:
                call(*sets[rep % len(sets)])
            except RuntimeError as error:
                if rep == -2:
                    print(str(error)[:80])
                continue
            end.record()
            end.synchronize()
            if rep >= 0:
                mine.append(begin.elapsed_time(end))
    return [sorted(x)[len(x) // 2] if x else None for x in times]


def segment_pairs(n, w, r, s, causal):
    total = 0
    for length, many in ((w, n // w), (n % w, 1)):
        rows = max(0, (length - s + r - 1) // r)
        total += many * (rows * (rows + 1) // 2 if causal else rows * rows)
    return total


def flops(b, n, h, d, w, r, causal):
    return (
        4
        * d
        * b
        * sum(
            segment_pairs(n, min(wi, n), ri, j % ri, causal)
            for wi, ri in zip(w, r)
            for j in range(h)
        )
    )


if __name__ == "__main__":
    direction = "harness_forward"
    if sys.argv[1] == "backward":
        direction = "harness_backward"
        sys.argv.pop(1)
    kernels = importlib.import_module(direction)
    command, *paths = sys.argv[1:]
    if command == "check":
        kernels.check(Kernel(paths[0]))
    elif command == "once":
        kernels.once(Kernel(paths[0]), paths[1])
    else:
        kernels.bench([Kernel(p) for p in paths])
