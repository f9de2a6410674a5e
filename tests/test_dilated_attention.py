"""longnet.DilatedAttention, forward and backward, against the naive reference."""

from dataclasses import asdict, replace
from functools import cache

import attention_cases
import ml_dtypes
import numpy as np
import pytest
from attention_cases import NAMES, Case, largest, random_case, relative_error
from reference import dilated_attention as reference
from reference.dilated_attention import Pattern

longnet = pytest.importorskip("longnet")

CONFIGURATIONS = 500
INSTRUCTION_SETS = "scalar", "avx2", "avx512"
PAPER = Pattern((32, 64, 128), (1, 2, 4))  # the paper's shape, small


def make_case(rng, pattern, n, heads=4, kv_heads=4, dim=32, batch=1, dtype=np.float32, **options):
    shapes = [(batch, n, h, dim) for h in (heads, kv_heads, kv_heads, heads)]
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    return Case(pattern, *arrays, options)


@cache
def random_expected(seed):
    return random_case(seed).expected()


@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS)
def test_random_configurations(instruction_set, python, tmp_path):
    file = tmp_path / "results.npz"
    done = python(
        attention_cases.__file__,
        str(CONFIGURATIONS),
        str(file),
        LONGNET_CPU=instruction_set,
        LONGNET_POISON="1",  # fresh memory is NaN: what is read must have been written
    )
    if f"this processor has no {instruction_set}" in done.stderr:
        pytest.skip(f"this processor has no {instruction_set}")
    assert done.returncode == 0, done.stderr
    wrong = []
    with np.load(file) as results:
        for seed in range(CONFIGURATIONS):
            case = random_case(seed)
            computed = tuple(results[f"{seed}/{name}"] for name in NAMES)
            errors = case.errors(computed, random_expected(seed))
            if not max(errors.values()) <= 1e-5:
                wrong.append(f"{seed}: {case} {errors}")
    assert not wrong, "\n".join([f"{len(wrong)} configurations", *wrong[:10]])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("dim", [64, 80])
def test_ordinary_attention(rng, causal, dim):
    """One level with w >= N and r = 1 sees everything."""
    n = 333
    case = make_case(rng, Pattern((1000,), (1,), causal), n, heads=4, kv_heads=2, dim=dim)
    k, v = (np.repeat(x[0].astype(float), 2, axis=1) for x in (case.k, case.v))
    s = np.einsum("nhd,mhd->hnm", case.q[0].astype(float), k) / np.sqrt(dim)
    s = np.where(np.tri(n, dtype=bool) | (not causal), s, -np.inf)
    p = np.exp(s - s.max(axis=2, keepdims=True))
    expected = np.einsum("hnm,mhd->nhd", p / p.sum(axis=2, keepdims=True), v)
    out, lse = case.computed()[:2]
    assert relative_error(out[0], expected) < 1e-5
    assert relative_error(lse[0], s.max(axis=2) + np.log(p.sum(axis=2))) < 1e-5


@pytest.mark.parametrize("dim", range(16, 257, 8))
def test_every_head_dim(rng, dim):
    case = make_case(rng, Pattern((40, 130), (1, 3)), 131, heads=3, kv_heads=1, dim=dim)
    assert max(case.errors(case.computed(), case.expected()).values()) < 1e-5


@pytest.mark.parametrize("causal", [True, False])
def test_long_segments(rng, causal):
    """Segments of many key tiles, a short last segment, rows that end inside a tile."""
    pattern = Pattern((700, 1400), (1, 3), causal, gradient="detached")
    case = make_case(rng, pattern, 1501, heads=3, kv_heads=1, dim=24)
    assert max(case.errors(case.computed(), case.expected()).values()) < 1e-5


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("gradient", ["exact", "detached"])
def test_same_bits_for_any_number_of_threads(rng, restore_threads, causal, gradient):
    pattern = Pattern((256, 1024), (1, 4), causal, gradient=gradient, dropout=0.1)
    case = make_case(rng, pattern, 3001, heads=6, kv_heads=3, dim=16, seed=5)
    runs = []
    for threads in (1, 2, 4, 4):
        longnet.set_num_threads(threads)
        runs.append(case.computed())
    for run in runs[1:]:
        for name, first, other in zip(NAMES, runs[0], run, strict=True):
            assert first.tobytes() == other.tobytes(), name


@pytest.mark.parametrize("gradient", ["exact", "detached"])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision(rng, dtype, gradient):
    """At most twice the error of float64 arithmetic on the same rounded inputs and outputs."""
    pattern = replace(PAPER, gradient=gradient)
    case = make_case(rng, pattern, 301, kv_heads=2, batch=2, dtype=dtype)
    exact, computed = case.expected(), case.computed()
    out, lse = exact[0].astype(dtype), exact[1].astype(np.float32)
    gradients = reference.backward(pattern, case.dout, case.q, case.k, case.v, out, lse)
    plain = out, lse, *(x.astype(dtype) for x in gradients)
    for name, x, y, z in zip(NAMES, computed, plain, exact, strict=True):
        assert x.dtype == y.dtype, name
        if name == "lse":
            assert relative_error(x, z) < 1e-5
        else:
            assert relative_error(x, z) <= 2 * relative_error(y, z), name


def test_scores_far_apart(rng):
    """Scores of +-7,000: no overflow, and no more error than float32 scores bring with them.

    A score s is known to half a unit in its last place, 2^-24 |s|, and with it the logarithm of a
    probability; rounding of the scale, the product, the LSE and their difference allows four.
    """
    case = make_case(rng, PAPER, 200)
    case.q[:] *= 40
    case.k[:] *= 40
    errors = case.errors(case.computed(), case.expected())
    highest = largest(case.expected()[1])
    assert highest > 5000
    assert errors.pop("lse") < 1e-6
    assert max(errors.values()) < 4 * 2**-24 * highest


def test_scores_beyond_float32(rng):
    """Scores overflow to infinities in no way that a row that does not see them would notice."""
    case = make_case(rng, PAPER, 200)
    case.k[0, 150, 1] = 1e38
    case.q[0, :150] *= 10
    hidden = reference.visible(PAPER, 200, 1, 4)[:, 150] == 0
    clean = make_case(rng, PAPER, 200)
    for name in ("q", "v", "dout"):
        getattr(clean, name)[:] = getattr(case, name)
    clean.k[:] = case.k
    clean.k[0, 150, 1] = 0.0
    assert np.array_equal(case.computed()[0][0, hidden, 1], clean.computed()[0][0, hidden, 1])


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("which", ["q", "k", "v", "dout"])
def test_nan_reaches_only_those_who_see_it(rng, which, causal):
    """One row of one tensor is NaN: other heads keep their bits, other rows their values."""
    n, heads, row, head = 260, 4, 77, 1
    pattern = replace(PAPER, causal=causal)
    case = make_case(rng, pattern, n, heads)
    clean = case.computed()
    getattr(case, which)[0, row, head] = np.nan
    out, _, dq, dk, dv = (x[0] for x in case.computed())
    sees = reference.visible(pattern, n, head, heads) > 0
    by_rows = sees[:, row] if which in "kv" else np.eye(n, dtype=bool)[row]  # queries
    by_keys = sees[by_rows].any(axis=0)  # keys that those queries see
    touched = {
        "out": by_rows if which != "dout" else np.zeros(n, bool),
        "dq": by_rows,
        "dk": by_keys,
        "dv": by_keys if which != "v" else np.zeros(n, bool),
    }
    for name, x in zip(("out", "dq", "dk", "dv"), (out, dq, dk, dv), strict=True):
        before = clean[NAMES.index(name)][0]
        others, reached = np.arange(heads) != head, touched[name]
        np.testing.assert_array_equal(x[:, others], before[:, others], err_msg=name)
        assert relative_error(x[~reached, head], before[~reached, head]) < 1e-5, name
        assert np.isnan(x[reached, head]).any(axis=1).all(), name


def test_memory(rng):
    """Beyond inputs and outputs a call needs at most 3 % more."""
    x = rng.standard_normal((1, 65_536, 12, 64), dtype=np.float32)
    attention = longnet.DilatedAttention([512, 2048, 8192], [2, 8, 16])

    def extra(call, inputs):
        before = longnet.memory_stats()["bytes"]
        longnet.reset_peak_memory()
        results = call(*inputs)
        size = sum(x.nbytes for x in results)
        beyond = longnet.memory_stats()["peak_bytes"] - before - size
        return results, beyond / (size + sum(x.nbytes for x in inputs))

    (out, lse), forward = extra(attention.forward, (x, x, x))
    _, backward = extra(attention.backward, (x, x, x, x, out, lse))
    assert forward <= 0.03
    assert backward <= 0.03


def test_subclass_and_attributes():
    attention = longnet.DilatedAttention(**asdict(replace(PAPER, zero_keys=True, scale=0.5)))
    assert isinstance(attention, longnet._core.DilatedAttention)
    for name, value in asdict(attention_pattern(attention)).items():
        assert getattr(attention, name) == value, name
    default = longnet.DilatedAttention([16], [2])
    assert attention_pattern(default) == Pattern((16,), (2,))


def attention_pattern(attention):
    """The options an attention says it has."""
    options = {name: getattr(attention, name) for name in asdict(PAPER)}
    for name in ("segment_lengths", "dilation_rates"):
        options[name] = tuple(options[name])
    return Pattern(**options)
