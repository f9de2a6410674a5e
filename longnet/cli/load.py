"""A trained model, as commands take it up."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from longnet.checkpoint import Checkpoint
    from longnet.config import RunConfig
    from longnet.model import LongNet


class Trained(NamedTuple):
    """A model out of a checkpoint.

    Attributes
    ----------
    model : LongNet
        Without dropout.
    config : RunConfig
        Of the run that saved it, its device and dtype those that the model has.
    checkpoint : Checkpoint
    """

    model: LongNet
    config: RunConfig
    checkpoint: Checkpoint


def load_trained(path: str, device: str | None = None, dtype: str | None = None) -> Trained:
    """Read the model of a checkpoint, or of the latest one in a run's folder.

    Parameters
    ----------
    path : str
    device, dtype : str, optional
        Where and in what it computes; by default as it was trained.

    Raises
    ------
    LongNetError
        There is no checkpoint, it is damaged, or the device is absent.
    """
    from longnet.errors import CheckpointError
    from longnet.functional.buffers import cast_to
    from longnet.model import LongNet
    from longnet.train import read_checkpoint, saved_config

    checkpoint = read_checkpoint(path)
    given = {"device": device, "dtype": dtype}
    changes = {name: value for name, value in given.items() if value is not None}
    config = saved_config(checkpoint).merge({"train": changes})
    model = LongNet(config.model, dtype=config.train.dtype, device=config.train.device)
    try:
        model.load_state_dict(checkpoint.arrays["model"])
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.path}: {error}") from error
    if config.train.dtype != "float32":
        for parameter in model.parameters():  # once, and not anew in every pass
            parameter.rounded = cast_to(parameter.data, config.train.dtype)
    model.eval()
    return Trained(model, config, checkpoint)
