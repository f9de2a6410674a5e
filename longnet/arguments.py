"""Plain numbers that callers give: Python's own, NumPy's, or whatever else says that it is one."""

import math
import operator
import reprlib
from typing import SupportsFloat, SupportsIndex, cast

from longnet.errors import ConfigError


def integer(name: str, value: object) -> int:
    """Return an integer as an int.

    Raises
    ------
    TypeError
        `value` has no ``__index__``; the message has `name` and the value.
    """
    try:
        return operator.index(cast(SupportsIndex, value))
    except TypeError:
        raise TypeError(f"{name}: found {_shown(value)}, expected an integer") from None


def at_least(name: str, value: object, least: int) -> int:
    """Return an integer that is not below `least` as an int.

    Raises
    ------
    TypeError
        As `integer` does.
    ConfigError
        It is below; the message has `name` and the value.
    """
    found = integer(name, value)
    if found < least:
        raise ConfigError(f"{name}: {found}, expected {least} or more")
    return found


def number(name: str, value: object) -> float:
    """Return a real number as a float.

    Raises
    ------
    TypeError
        `value` has no ``__float__``; the message has `name` and the value.
    """
    try:
        return math.ldexp(cast(SupportsFloat, value), 0)  # float() would read a string
    except TypeError:
        raise TypeError(f"{name}: found {_shown(value)}, expected a number") from None


def _shown(value: object) -> str:
    return " ".join(reprlib.repr(value).split())  # an array's has several lines
