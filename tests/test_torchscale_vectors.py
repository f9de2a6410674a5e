"""The results of torchscale's own code: offsets `grouped`, gradient `detached`."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from attention_cases import relative_error
from reference import dilated_attention as reference
from reference.dilated_attention import Pattern

REPOSITORY = Path(__file__).parents[1]
FILE = Path(
    os.environ.get("LONGNET_VECTORS", REPOSITORY.parent / "shared" / "vectors" / "torchscale.npz")
)
RESULTS = "o", "dq", "dk", "dv"

pytestmark = pytest.mark.skipif(
    not FILE.exists(), reason=f"{FILE} does not exist: LONGNET_VECTORS names another place"
)


@pytest.fixture(params=range(4))
def case(request):
    """Pattern options, inputs q, k, v, do and results o, dq, dk, dv of one case."""
    with np.load(FILE) as file:
        arrays = {name: file[f"{request.param}/{name}"] for name in ("q", "k", "v", "do", *RESULTS)}
        options = json.loads(str(file[f"{request.param}/meta"]))
    return options | {"offsets": "grouped", "gradient": "detached"}, arrays


def errors(results, arrays):
    return {n: relative_error(x, arrays[n]) for n, x in zip(RESULTS, results, strict=True)}


def test_reference(case):
    options, arrays = case
    inputs = arrays["q"], arrays["k"], arrays["v"]
    out, lse = reference.forward(Pattern(**options), *inputs)
    gradients = reference.backward(Pattern(**options), arrays["do"], *inputs, out, lse)
    assert max(errors((out, *gradients), arrays).values()) < 1e-6


def test_longnet(case):
    import longnet

    options, arrays = case
    width = arrays["q"].shape[-1]
    # A head dim of 8 is below what longnet takes; zeros to its right change no product.
    padded = [
        np.pad(arrays[name], [(0, 0)] * 3 + [(0, max(16 - width, 0))])
        for name in ("do", "q", "k", "v")
    ]
    attention = longnet.DilatedAttention(**options, scale=width**-0.5)
    out, lse = attention.forward(*padded[1:])
    results = out, *attention.backward(*padded, out, lse)
    assert max(errors([x[..., :width] for x in results], arrays).values()) < 1e-5
