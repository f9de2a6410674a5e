"""Random configurations of dilated attention; as a script, what longnet makes of them.

`python attention_cases.py COUNT FILE` writes longnet's results to an .npz file: the instruction
set is chosen when longnet is imported, so each one needs a process of its own. With a third
argument, `pieces`, it writes those of each case's pieces.
"""

import itertools
import sys
from dataclasses import asdict, dataclass, replace

import numpy as np
from reference import dilated_attention as reference
from reference.dilated_attention import Pattern

NAMES = "out", "lse", "dq", "dk", "dv"


@dataclass(frozen=True)
class Case:
    """A pattern, inputs that fit it, and the options of the calls."""

    pattern: Pattern
    q: np.ndarray  # (B, N, H, D)
    k: np.ndarray  # (B, N, Hk, D)
    v: np.ndarray  # (B, N, Hk, D)
    dout: np.ndarray  # (B, N, H, D)
    options: dict

    def __str__(self) -> str:
        return f"{self.pattern} q {self.q.shape} k {self.k.shape} {self.options}"

    def expected(self) -> tuple[np.ndarray, ...]:
        """Out, lse, dq, dk and dv by the reference."""
        out, lse = reference.forward(self.pattern, self.q, self.k, self.v, **self.options)
        inputs = self.dout, self.q, self.k, self.v, out, lse
        return out, lse, *reference.backward(self.pattern, *inputs, **self.options)

    def computed(self) -> tuple[np.ndarray, ...]:
        """The same by longnet."""
        import longnet

        attention = longnet.DilatedAttention(**asdict(self.pattern))
        out, lse = attention.forward(self.q, self.k, self.v, **self.options)
        inputs = self.dout, self.q, self.k, self.v, out, lse
        return out, lse, *attention.backward(*inputs, **self.options)

    def of_queries(self, begin: int, end: int) -> "Case":
        """The case of rows [begin, end) of q, with all of k and v."""
        q, dout = (np.ascontiguousarray(x[:, begin:end]) for x in (self.q, self.dout))
        return replace(self, q=q, dout=dout, options=self.options | {"query_start": begin})

    def expected_of_queries(self, begin: int, end: int) -> tuple[np.ndarray, ...]:
        """By the reference, of the whole: other queries are without a gradient."""
        dout = np.zeros_like(self.dout)
        dout[:, begin:end] = self.dout[:, begin:end]
        out, lse, dq, dk, dv = replace(self, dout=dout).expected()
        return out[:, begin:end], lse[..., begin:end], dq[:, begin:end], dk, dv

    def errors(self, computed: tuple, expected: tuple) -> dict[str, float]:
        """Of every result the largest error relative to the largest value expected."""
        found = {
            name: relative_error(*pair)
            for name, *pair in zip(NAMES[:2], computed[:2], expected[:2], strict=True)
        }
        scale = self.q.shape[-1] ** -0.5 if self.pattern.scale is None else self.pattern.scale
        term = abs(scale) * largest(self.dout) * largest(self.v)
        floors = term * largest(self.k), term * largest(self.q), 0.0
        for name, floor, *pair in zip(NAMES[2:], floors, computed[2:], expected[2:], strict=True):
            found[name] = relative_error(*pair, floor)
        return found


def op_arguments(case: Case) -> dict:
    """What the ops are told of a case's pattern."""
    pattern = case.pattern
    return {
        "segment_lengths": pattern.segment_lengths,
        "dilation_rates": pattern.dilation_rates,
        "offsets": ["interleaved", "grouped"].index(pattern.offsets),
        "causal": pattern.causal,
        "detached": pattern.gradient == "detached",
        "zero_keys": pattern.zero_keys,
        "deterministic": False,
        "scale": case.q.shape[-1] ** -0.5 if pattern.scale is None else pattern.scale,
        "dropout": pattern.dropout,
        "seed": case.options.get("seed", 0),
    }


def largest(x: np.ndarray) -> float:
    return float(np.abs(x).max(initial=0.0))


def relative_error(computed: np.ndarray, expected: np.ndarray, term: float = 0.0) -> float:
    """Largest error over largest expected value; infinite if infinities differ or NaN appears.

    `term` is how large the terms of the sum are: where they cancel to nothing (a query that sees
    one key has a gradient of 0) the error is taken relative to them.
    """
    if computed.shape != expected.shape:
        return np.inf
    finite = np.isfinite(expected)
    if not np.array_equal(computed[~finite], expected[~finite]):
        return np.inf
    size = largest(expected[finite])
    size = term if size < 1e-12 * term else size
    error = largest(computed[finite].astype(np.float64) - expected[finite])
    if error == 0.0:
        return 0.0
    return error / size if error < np.inf and size > 0.0 else np.inf


def random_pattern(rng: np.random.Generator, n: int) -> Pattern:
    lengths, rates = [], []
    for _ in range(rng.integers(1, 5)):
        w = int(rng.integers(1, rng.choice([min(9, 2 * n + 1), n + 1, 2 * n + 1])))
        lengths.append(w)
        rates.append(int(rng.choice([1, rng.integers(1, min(w, 8) + 1), rng.integers(1, w + 1)])))
    return Pattern(
        tuple(lengths),
        tuple(rates),
        causal=bool(rng.random() < 0.6),
        offsets=str(rng.choice(["interleaved", "grouped"])),
        gradient=str(rng.choice(["exact", "detached"])),
        zero_keys=bool(rng.random() < 0.3),
        scale=float(rng.uniform(0.05, 0.4)) if rng.random() < 0.2 else None,
        dropout=float(rng.uniform(0.01, 0.7)) if rng.random() < 0.25 else 0.0,
    )


def random_options(rng: np.random.Generator, batch: int, n: int, pattern: Pattern) -> dict:
    options: dict = {}
    kind = rng.random()
    if kind < 0.25:
        options["lengths"] = rng.integers(0, n + 1, batch)
    elif kind < 0.45 and batch == 1:
        inner = np.sort(rng.integers(0, n + 1, rng.integers(0, 5)))  # documents may be empty
        options["cu_seqlens"] = np.concatenate([[0], inner, [n]])
    if pattern.dropout > 0.0:
        options["seed"] = int(rng.integers(2**64, dtype=np.uint64))
    return options


def random_case(seed: int) -> Case:
    """Configuration number `seed`: odd lengths, any w and r, any heads, any option."""
    rng = np.random.default_rng([20230706, seed])
    n = int(rng.integers(1, rng.choice([2, 12, 60, 130], p=[0.1, 0.2, 0.6, 0.1])))
    batch = int(rng.integers(1, 4)) if rng.random() < 0.5 else 1
    kv_heads = int(rng.integers(1, 4))
    heads = kv_heads * int(rng.choice([1, 1, 2, 3]))
    dim = int(rng.choice([16, 16, 24, 32, 40, 48, 64, 8 * rng.integers(2, 33)]))
    pattern = random_pattern(rng, n)

    def array(heads: int) -> np.ndarray:
        return rng.standard_normal((batch, n, heads, dim), dtype=np.float32)

    q, k, v, dout = array(heads), array(kv_heads), array(kv_heads), array(heads)
    return Case(pattern, q, k, v, dout, random_options(rng, batch, n, pattern))


def random_cuts(seed: int, n: int) -> list[tuple[int, int]]:
    """Random pieces that n rows fall into, some of them perhaps empty."""
    rng = np.random.default_rng([20231119, seed])
    cuts = [0, *sorted(rng.integers(0, n + 1, rng.integers(1, 4)).tolist()), n]
    return list(itertools.pairwise(cuts))


def main() -> None:
    results = {}
    for seed in range(int(sys.argv[1])):
        case = random_case(seed)
        cases = {str(seed): case}
        if sys.argv[3:] == ["pieces"]:
            cuts = random_cuts(seed, case.q.shape[1])
            cases = {f"{seed}/{i}": case.of_queries(*cut) for i, cut in enumerate(cuts)}
        for key, one in cases.items():
            for name, result in zip(NAMES, one.computed(), strict=True):
                results[f"{key}/{name}"] = result
    np.savez(sys.argv[2], **results)


if __name__ == "__main__":
    main()
