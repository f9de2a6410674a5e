"""The threads of NumPy's BLAS."""

import numpy as np
import pytest

from longnet import blas


@pytest.fixture
def restore():
    before = blas.num_threads()
    yield before
    if before is not None:
        blas.set_num_threads(before)


def test_what_is_set_is_found(restore):
    if restore is None:
        pytest.skip("NumPy's BLAS has no number of threads that can be read here")
    for n in (1, 2, 1):
        blas.set_num_threads(n)
        assert blas.num_threads() == n
        x = np.ones((64, 64), np.float32)
        np.testing.assert_array_equal(x @ x, np.full((64, 64), 64))


def test_numpys_own_wheels_are_known(python):
    """Their OpenBLAS takes what the environment says."""
    if "openblas" not in np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]:
        pytest.skip("another BLAS")
    code = "import numpy; from longnet import blas; print(blas.num_threads())"
    assert python("-c", code, OPENBLAS_NUM_THREADS="1").stdout.strip() == "1"


@pytest.mark.parametrize("maps", [None, "7f00-7f01 r-xp 0 0:0 0 /nowhere/libopenblas.so.0\n"])
def test_where_nothing_is_known_nothing_happens(tmp_path, monkeypatch, maps):
    path = tmp_path / "maps"
    if maps is not None:
        path.write_text(maps)
    monkeypatch.setattr(blas, "_MAPS", path)
    monkeypatch.setattr(blas, "_libraries", lambda: tuple(blas._find()))
    assert blas.num_threads() is None
    blas.set_num_threads(3)
