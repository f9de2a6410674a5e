"""Readers of benchmark files that the user has; nothing is downloaded."""

from longnet.evaluate.readers.labelled import (
    ImageFile,
    LabelledImage,
    LabelledText,
    read_idx,
    read_imdb,
    read_listops,
    read_pathfinder,
    read_retrieval,
)
from longnet.evaluate.readers.text import (
    Book,
    Passage,
    Question,
    read_lambada,
    read_longbench,
    read_pg19,
)

__all__ = [
    "Book",
    "ImageFile",
    "LabelledImage",
    "LabelledText",
    "Passage",
    "Question",
    "read_idx",
    "read_imdb",
    "read_lambada",
    "read_listops",
    "read_longbench",
    "read_pathfinder",
    "read_pg19",
    "read_retrieval",
]
