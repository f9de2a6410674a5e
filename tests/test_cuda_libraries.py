"""How CUDA's libraries are found."""

import sys
from types import SimpleNamespace

import pytest

from longnet import cuda_libraries


class NotFoundError(RuntimeError):
    pass


@pytest.fixture
def pathfinder(monkeypatch):
    """A cuda-pathfinder that finds cublasLt alone, and the names that it was asked for."""
    asked = []

    def load(name):
        asked.append(name)
        if name != "cublasLt":
            raise NotFoundError(name)

    module = SimpleNamespace(load_nvidia_dynamic_lib=load, DynamicLibNotFoundError=NotFoundError)
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(pathfinder=module))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", module)
    cuda_libraries.load.cache_clear()
    yield asked
    cuda_libraries.load.cache_clear()


def test_a_library_is_loaded_once(pathfinder):
    cuda_libraries.load("cublasLt")
    cuda_libraries.load("cublasLt")
    assert pathfinder == ["cublasLt"]


def test_a_library_that_is_not_there_is_left_to_the_backend(pathfinder):
    cuda_libraries.load("nccl")
    assert pathfinder == ["nccl"]


def test_without_pathfinder(monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", None)
    cuda_libraries.load.__wrapped__("cublasLt")
