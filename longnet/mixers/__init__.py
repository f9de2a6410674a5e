"""Token mixers by name.

A mixer is a `longnet.nn.Module` that lets positions see each other: x (B, N, E) -> (B, N, E). Every
file in this folder is imported, so that a mixer is one new file that calls `register`.
"""

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules

from longnet.config import Config
from longnet.errors import ConfigError
from longnet.nn import Module

_Mixer = Callable[..., Module]
_mixers: dict[str, _Mixer] = {}


def register(name: str) -> Callable[[_Mixer], _Mixer]:
    """Return a class decorator that makes a mixer known as `name`.

    The class is called with (config, layer, device=...), and its instances with
    (x, lengths=..., cu_seqlens=..., deterministic=...); see docs/adding_a_mixer.md.

    Raises
    ------
    ConfigError
        Another mixer has this name.
    """

    def add(mixer: _Mixer) -> _Mixer:
        if name in _mixers:
            raise ConfigError(f"mixer {name!r}: registered twice, expected a name not in use")
        _mixers[name] = mixer
        return mixer

    return add


def make(name: str, config: Config, layer: int, *, device: str = "cpu") -> Module:
    """Return a new mixer.

    Parameters
    ----------
    name : str
        One of `names`.
    config : Config
        The model's.
    layer : int
        Which layer it is for, from 0.
    device : str
        Where its parameters lie.

    Raises
    ------
    ConfigError
        No mixer has this name.
    """
    if name not in _mixers:
        raise ConfigError(f"model.mixer: found {name!r}, expected one of {', '.join(names())}")
    return _mixers[name](config, layer, device=device)


def names() -> list[str]:
    """Return the names of all mixers."""
    return sorted(_mixers)


for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
