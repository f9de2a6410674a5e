"""The exceptions longnet raises.

Each also derives from the built-in exception a caller would expect, so ``except ValueError`` works
without importing anything from here. The extension imports these classes: there is one definition.
"""


class LongNetError(Exception):
    """Base of every exception longnet raises on purpose."""


class ShapeError(LongNetError, ValueError):
    """An array's shape does not fit the operation."""


class DTypeError(LongNetError, TypeError):
    """An array's element type is not one the operation takes."""


class DeviceError(LongNetError, RuntimeError):
    """A device is absent, unknown, failed, or two operands live on different ones."""


class OutOfMemoryError(LongNetError, MemoryError):
    """An allocation failed on the host or on a device."""


class ConfigError(LongNetError, ValueError):
    """A setting is unknown, of the wrong type, or outside its range."""


class CommunicatorError(LongNetError, RuntimeError):
    """Ranks cannot reach each other: one died, came too late, gave up or does something else."""


class CheckpointError(LongNetError, ValueError):
    """A checkpoint cannot be written, is incomplete, or is damaged."""


class DataError(LongNetError, ValueError):
    """Training or evaluation data cannot be read or does not fit the request."""


class DivergenceError(LongNetError, ArithmeticError):
    """The loss, the gradients or the weights of a training step are not finite."""
