"""Text from a model: prompts read in pieces, then one token at a time over a cache."""

from longnet.generate.cache import ModelCache
from longnet.generate.reading import PIECE, read
from longnet.generate.storage import load_cache, save_cache
from longnet.generate.text import stream_text
from longnet.generate.tokens import generate, generate_batch, stream

__all__ = [
    "PIECE",
    "ModelCache",
    "generate",
    "generate_batch",
    "load_cache",
    "read",
    "save_cache",
    "stream",
    "stream_text",
]
