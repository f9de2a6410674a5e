"""Checkpoints: a folder ``step-00000100/`` that is either complete or not there.

It holds one ``<group>.safetensors`` for each group of arrays (``model``, ``optimizer``),
``state.json`` (the step and whatever JSON the trainer gives) and ``manifest.json`` (size and
SHA-256 of each of the others).
"""

from longnet.checkpoint.layout import latest
from longnet.checkpoint.reader import Checkpoint, load, load_latest
from longnet.checkpoint.writer import save

__all__ = ["Checkpoint", "latest", "load", "load_latest", "save"]
