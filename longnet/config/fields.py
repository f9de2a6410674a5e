"""Check one value against the type its dataclass field declares."""

import difflib
import math
import numbers
import os
import reprlib
import types
from collections.abc import Iterable
from typing import Any, Literal, NoReturn, Union, get_args, get_origin

from longnet.errors import ConfigError

_INT64 = range(-(2**63), 2**63)


class Mismatch(Exception):
    """A value is not of the type asked for."""


def fail(where: str, found: object, expected: str) -> NoReturn:
    """Raise the `ConfigError` that names a setting, the value found and the value expected."""
    shown = " ".join(reprlib.repr(found).split())  # an array's repr has several lines
    raise ConfigError(f"{where}: found {shown}, expected {expected}")


def unknown_key(where: str, key: str, known: Iterable[str]) -> NoReturn:
    """Raise the `ConfigError` for a key that does not exist, with the nearest one that does."""
    names = list(known)
    nearest = difflib.get_close_matches(key, names, n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"expected one of {', '.join(names)}"
    raise ConfigError(f"{where if where.isprintable() else repr(where)}: unknown key, {hint}")


def convert(value: object, kind: Any) -> Any:
    """Return `value` as the annotation `kind` wants it: lists become tuples, ints become floats.

    Parameters
    ----------
    value : object
        What a caller, a JSON or a TOML file gave.
    kind : type annotation
        ``int``, ``float``, ``bool``, ``str``, ``None``, ``Literal``, ``tuple`` or a union of them.

    Raises
    ------
    Mismatch
        `value` is of another type.
    """
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        for choice in get_args(kind):
            try:
                return convert(value, choice)
            except Mismatch:
                continue
        raise Mismatch
    if origin is Literal:
        if isinstance(value, str) and value in get_args(kind):
            return value
        raise Mismatch
    if origin is tuple:
        return _convert_list(value, get_args(kind))
    return _SCALARS[kind](value)


def _convert_list(value: object, items: tuple[Any, ...]) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise Mismatch
    if len(items) == 2 and items[1] is Ellipsis:
        return tuple(convert(item, items[0]) for item in value)
    if len(value) != len(items):
        raise Mismatch
    return tuple(convert(item, kind) for item, kind in zip(value, items, strict=True))


def _convert_int(value: object) -> int:
    # bool is an Integral; NumPy's integers are too, and are wanted.
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise Mismatch
    if int(value) not in _INT64:
        raise Mismatch
    return int(value)


def _convert_float(value: object) -> float:
    if isinstance(value, numbers.Integral):
        return float(_convert_int(value))
    if not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise Mismatch
    return float(value)


def _convert_bool(value: object) -> bool:
    if not isinstance(value, bool):
        raise Mismatch
    return value


def _convert_str(value: object) -> str:
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    # Lone surrogates (undecodable file names) cannot be written to a UTF-8 file.
    if not isinstance(text, str) or any("\ud800" <= c <= "\udfff" for c in text):
        raise Mismatch
    return text


def _convert_none(value: object) -> None:
    if value is not None:
        raise Mismatch


_SCALARS = {
    int: _convert_int,
    float: _convert_float,
    bool: _convert_bool,
    str: _convert_str,
    type(None): _convert_none,
}

_NAMES = {
    int: ("an int of 64 bits", "ints"),
    float: ("a finite float", "floats"),
    bool: ("true or false", "booleans"),
    str: ("a string", "strings"),
    type(None): ("none", "nones"),
}


def describe(kind: Any, plural: bool = False) -> str:
    """Say in words what `convert` takes for the annotation `kind`."""
    origin, choices = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(describe(choice) for choice in choices)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in choices)
    if origin is tuple:
        count = "" if choices[1] is Ellipsis else f"{len(choices)} "
        return f"{'lists' if plural else 'a list'} of {count}{describe(choices[0], plural=True)}"
    return _NAMES[kind][plural]
