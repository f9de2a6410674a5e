"""Caches on disk, so that a long prompt is read once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import ml_dtypes  # noqa: F401  lets safetensors give a bfloat16 array back
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from longnet.checkpoint.layout import reason
from longnet.errors import CheckpointError, ShapeError
from longnet.generate.cache import ModelCache

_FORMAT = "longnet-cache-1"


def save_cache(
    path: str | os.PathLike[str], cache: ModelCache, model: Any, *, tokenizer: str = ""
) -> None:
    """Write a cache to one file (safetensors), or leave what was there.

    Parameters
    ----------
    path : path
    cache : ModelCache
    model : LongNet
        Whose cache it is.
    tokenizer : str
        The fingerprint of the tokenizer whose tokens it has seen, if that is to be checked.

    Raises
    ------
    CheckpointError
        The file cannot be written.
    """
    path = Path(path)
    arrays = {} if cache.logits is None else {"logits": cache.logits}
    for i, layer in enumerate(cache.layers):
        for name, array in layer.state().items():
            arrays[f"layers.{i}.{name}"] = array
    facts = {
        "format": _FORMAT,
        "model": fingerprint(model),
        "tokenizer": tokenizer,
        "seen": json.dumps(cache.seen),
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        save_file(arrays, temporary, metadata=facts)
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise CheckpointError(f"{path}: cannot be saved: {reason(error)}") from error


def load_cache(path: str | os.PathLike[str], model: Any, *, tokenizer: str = "") -> ModelCache:
    """Read a cache that `save_cache` wrote.

    Parameters
    ----------
    path : path
    model : LongNet
        With the configuration and the weights that it had then, on any device.
    tokenizer : str
        The fingerprint of the tokenizer, if that is to be checked.

    Returns
    -------
    ModelCache

    Raises
    ------
    CheckpointError
        The file is no cache, or one of another model or tokenizer; the message names what was
        found and what was expected.
    """
    try:
        with safe_open(path, framework="numpy") as file:
            facts = file.metadata() or {}
            _check(path, facts, model, tokenizer)
            seen = json.loads(facts["seen"])
            names = set(file.keys())
            cache = model.cache(len(seen))
            for i, layer in enumerate(cache.layers):
                begin = f"layers.{i}."
                own = [name for name in names if name.startswith(begin)]
                layer.restore(seen, {n.removeprefix(begin): file.get_tensor(n) for n in own})
            cache.seen = seen
            cache.logits = file.get_tensor("logits") if "logits" in names else None
            return cache
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: cannot be read: {reason(error)}") from error
    except ShapeError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except KeyError as error:
        raise CheckpointError(
            f"{path}: found no {error.args[0]}, expected a whole cache"
        ) from error


def fingerprint(model: Any) -> str:
    """Return what tells models apart: the SHA-256 of configuration, dtype and weights."""
    settings = {"config": model.config.to_dict(), "dtype": model.embedding.dtype}
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for name, array in model.state_dict().items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def _check(path: str | os.PathLike[str], facts: dict[str, str], model: Any, tokenizer: str) -> None:
    if facts.get("format") != _FORMAT:
        found = facts.get("format", "another file of arrays")
        raise CheckpointError(f"{path}: found {found}, expected {_FORMAT}")
    expected = fingerprint(model)
    if facts["model"] != expected:
        raise CheckpointError(
            f"{path}: found the cache of another model or dtype, {facts['model'][:12]}, "
            f"expected {expected[:12]}"
        )
    if tokenizer and facts["tokenizer"] and facts["tokenizer"] != tokenizer:
        raise CheckpointError(
            f"{path}: found tokens of the tokenizer {facts['tokenizer']}, expected {tokenizer}"
        )
