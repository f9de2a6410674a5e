"""Every mixer and every kind of positions on a GPU, beside the CPU."""

import numpy as np
import pytest
from test_cuda_training import SMALL, gradients

from longnet.config import Config

pytestmark = pytest.mark.gpu

VARIANTS = {
    "sliding": {"mixer": "sliding", "window": 25, "num_kv_heads": 2},
    "sparse": {"mixer": "sparse", "summary_columns": 6, "num_kv_heads": 2},
    "sparse, other columns": {"mixer": "sparse", "summary_columns": 8},
    "alibi": {"position": "alibi", "num_kv_heads": 1},
    "alibi, sparse": {"position": "alibi", "mixer": "sparse", "summary_columns": 5},
    "sinusoidal": {"position": "sinusoidal"},
    "learned": {"position": "learned", "max_positions": 200},
    "yarn": {
        "position": "rope",
        "position_scaling": "yarn",
        "position_factor": 4.0,
        "position_length": 64,
    },
}


@pytest.fixture
def batch(rng):
    ids = rng.integers(0, 300, (2, 201), dtype=np.int32)
    return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])


@pytest.mark.parametrize("sequences", [None, "lengths", "cu_seqlens"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_the_cpu_s(batch, variant, sequences):
    config, options = Config(**{**SMALL, **VARIANTS[variant]}), {}
    if sequences == "lengths":
        options["lengths"] = np.array([200, 77])
    if sequences == "cu_seqlens":
        batch = [np.ascontiguousarray(x[:1]) for x in batch]
        options["cu_seqlens"] = np.array([0, 50, 50, 51, 200])
    loss, expected = gradients(config, "cpu", *batch, **options)
    found_loss, found = gradients(config, "cuda", *batch, **options)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in expected.items():
        limit = 2e-4 * np.abs(gradient).max() + 1e-6 * largest
        assert np.abs(found[name] - gradient).max() <= limit, name


@pytest.mark.parametrize("variant", VARIANTS)
def test_half_precision_is_near(batch, variant):
    config = Config(**{**SMALL, **VARIANTS[variant]})
    loss, expected = gradients(config, "cpu", *batch)
    found_loss, found = gradients(config, "cuda", *batch, dtype="bfloat16")
    assert found_loss == pytest.approx(loss, rel=1e-2)
    norms = {name: np.linalg.norm(gradient) for name, gradient in expected.items()}
    for name, norm in norms.items():  # the bias of keys moves nothing where nothing is rotated
        error = np.linalg.norm(found[name] - expected[name])
        assert error <= 0.1 * norm + 1e-3 * max(norms.values()), name
