"""The base of the configuration dataclasses: type checks, dictionaries, JSON, TOML and files."""

import dataclasses
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, get_type_hints

from longnet.config.fields import Mismatch, convert, describe, fail, unknown_key
from longnet.errors import ConfigError


def field_types(cls: type) -> dict[str, Any]:
    """Map each field of a configuration dataclass to its annotation, in the order declared."""
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


@dataclasses.dataclass(frozen=True)
class Settings:
    """A frozen group of settings, or a group of such groups.

    A group of groups has fields that are themselves `Settings`; every field needs a default.
    A field that may be None must have None as its default: TOML has no null, so None is written by
    leaving the key out.
    """

    section: ClassVar[str] = ""

    def __post_init__(self) -> None:
        for name, kind in field_types(type(self)).items():
            value = getattr(self, name)
            if isinstance(kind, type) and issubclass(kind, Settings):
                if not isinstance(value, kind):
                    fail(self.where(name), value, f"a {kind.__name__}")
                continue
            try:
                object.__setattr__(self, name, convert(value, kind))
            except Mismatch:
                fail(self.where(name), value, describe(kind))

    @classmethod
    def where(cls, name: str) -> str:
        """Return the full name of a field, as error messages and overrides spell it."""
        return f"{cls.section}.{name}" if cls.section else name

    @classmethod
    def keys(cls) -> list[str]:
        """Return the names a key may have here, those inside groups spelt ``group.name``."""
        names = list(field_types(cls))
        for kind in field_types(cls).values():
            if isinstance(kind, type) and issubclass(kind, Settings):
                names += [kind.where(inner) for inner in field_types(kind)]
        return names

    def check(self, name: str, holds: bool, expected: str) -> None:
        """Raise `ConfigError` naming the field, its value and `expected` unless `holds`."""
        if not holds:
            fail(self.where(name), getattr(self, name), expected)

    def merge(self, values: Mapping[str, Any]) -> Self:
        """Return a copy in which the settings named in `values` are replaced.

        Raises
        ------
        ConfigError
            A key is unknown (the message names the nearest known one), or a value has the wrong
            type or lies outside its range.
        """
        changes: dict[str, Any] = {}
        for key, value in values.items():
            if key not in field_types(type(self)):
                unknown_key(self.where(key), str(key), self.keys())
            current = getattr(self, key)
            if isinstance(current, Settings) and not isinstance(value, Settings):
                if not isinstance(value, Mapping):
                    fail(self.where(key), value, f"a table of {key} settings")
                value = current.merge(value)
            changes[key] = value
        return dataclasses.replace(self, **changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Build from a dictionary; a missing key keeps its default. Raises as `merge` does."""
        return cls().merge(values)

    def to_dict(self) -> dict[str, Any]:
        """Return plain dictionaries, lists and scalars: what `from_dict` and JSON take."""
        return {name: _plain(getattr(self, name)) for name in field_types(type(self))}

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Build from JSON text. Raises `ConfigError` as `merge` does, or when it is not JSON."""
        return cls.from_dict(_parse_json(text))

    def to_json(self) -> str:
        """Return every setting as JSON text."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    @classmethod
    def from_toml(cls, text: str) -> Self:
        """Build from TOML text. Raises `ConfigError` as `merge` does, or when it is not TOML."""
        return cls.from_dict(_parse_toml(text))

    def to_toml(self) -> str:
        """Return every setting that is not None as TOML text."""
        return _toml_table(self.to_dict())

    @classmethod
    def load(cls, path: str | os.PathLike[str], base: Self | None = None) -> Self:
        """Read a ``.toml`` or ``.json`` file.

        Parameters
        ----------
        path : path
            The file; its suffix says how it is read.
        base : optional
            Where the settings come from that the file does not name; default: the defaults.

        Raises
        ------
        ConfigError
            As `merge` does, or when the file cannot be read or parsed; names the file.
        """
        path = Path(path)
        parse = {".toml": _parse_toml, ".json": _parse_json}.get(path.suffix)
        if parse is None:
            fail(f"{path}: file name", path.suffix, "the suffix .toml or .json")
        try:
            values = parse(path.read_text(encoding="utf-8"))
            return (cls() if base is None else base).merge(values)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
        except UnicodeDecodeError as error:
            fail(f"{path}: byte {error.start}", error.object[error.start], "UTF-8 text")
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.toml`` or ``.json`` file. Raises `ConfigError` for another suffix."""
        path = Path(path)
        write = {".toml": self.to_toml, ".json": self.to_json}.get(path.suffix)
        if write is None:
            fail(f"{path}: file name", path.suffix, "the suffix .toml or .json")
        path.write_text(write(), encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, Settings):
        return value.to_dict()
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _parse_toml(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not valid TOML: {error}") from None


def _parse_json(text: str) -> dict[str, Any]:
    try:
        values = json.loads(text, object_pairs_hook=_refuse_repeats)
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not valid JSON: {error}") from None
    if not isinstance(values, dict):
        fail("JSON", values, "an object")
    return values


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        repeated = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ConfigError(f"{repeated}: found twice, expected once")
    return values


def _toml_table(values: Mapping[str, Any]) -> str:
    lines = [
        f"{key} = {_toml_value(value)}"
        for key, value in values.items()
        if value is not None and not isinstance(value, Mapping)
    ]
    tables = [
        f"[{key}]\n{_toml_table(value)}"
        for key, value in values.items()
        if isinstance(value, Mapping)
    ]
    return "\n".join(["\n".join(lines) + "\n"] * bool(lines) + tables)


def _toml_value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_toml_value(item) for item in value)}]"
    if isinstance(value, str):
        # A JSON string is a TOML basic string, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value)
