"""The threads of NumPy's BLAS."""

import os
import textwrap

import numpy as np
import pytest

from longnet import blas


def test_what_is_set_is_found(restore_threads):
    if blas.num_threads() is None:
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


@pytest.fixture
def spun(python):
    """Milliseconds of a processor that an idle process takes after a product."""
    if "openblas" not in np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]:
        pytest.skip("another BLAS")
    if os.cpu_count() == 1:
        pytest.skip("one processor: no other threads")

    def run(imports: str, **environment: str) -> float:
        code = f"""
            {imports}
            from time import process_time, sleep
            x = numpy.ones((1024, 1024), numpy.float32)
            x @ x
            begin = process_time()
            sleep(0.1)
            print(1e3 * (process_time() - begin))"""
        done = python("-c", textwrap.dedent(code), **environment)
        assert done.returncode == 0, done.stderr
        return float(done.stdout)

    return run


def test_threads_do_not_spin_after_a_product_unless_the_user_says_so(spun, monkeypatch):
    monkeypatch.delenv("OPENBLAS_THREAD_TIMEOUT", raising=False)
    if spun("import longnet, numpy", OPENBLAS_THREAD_TIMEOUT="30") < 50:
        pytest.skip("the threads of this OpenBLAS never spin")
    assert spun("import longnet, numpy") < 20
    assert spun("import numpy, longnet") > 50  # it reads its settings once


@pytest.mark.parametrize("maps", [None, "7f00-7f01 r-xp 0 0:0 0 /nowhere/libopenblas.so.0\n"])
def test_where_nothing_is_known_nothing_happens(tmp_path, monkeypatch, maps):
    path = tmp_path / "maps"
    if maps is not None:
        path.write_text(maps)
    monkeypatch.setattr(blas, "_MAPS", path)
    monkeypatch.setattr(blas, "_libraries", lambda: tuple(blas._find()))
    assert blas.num_threads() is None
    blas.set_num_threads(3)
