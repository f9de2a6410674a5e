"""Tasks whose examples are in files that the user has: the Long Range Arena, and images as IDX."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from longnet.arguments import integer
from longnet.data.permutation import Permutation
from longnet.errors import ConfigError, DataError
from longnet.evaluate.readers import (
    ImageFile,
    LabelledImage,
    LabelledText,
    read_idx,
    read_imdb,
    read_listops,
    read_pathfinder,
    read_retrieval,
)
from longnet.tasks import Example
from longnet.tasks.classification import ClassificationTask, ask_label
from longnet.tasks.draw import Draw
from longnet.tasks.listops import SYMBOLS

_TEST_SHARE = 10  # one in so many of the images is held out where the files have no split


class FileTask(ClassificationTask):
    """Classification of what lies in files.

    The examples of a seed are all items in a random order, then all in another, and so on.

    Parameters
    ----------
    name : str
    files : Files
        What they are.
    items : sequence
        As the reader gives them, at least one.
    """

    generates = False
    minimum_length = 1
    shortcut_name = "the class that most of the files are of"

    def __init__(self, name: str, files: Files, items: Sequence[Any]) -> None:
        self.name, self.paper = name, files.paper
        self.classes, self.vocab_size = files.classes, files.vocab_size
        self.items = items
        labels = [item.label for item in items]
        self._commonest = int(np.bincount(labels, minlength=self.classes).argmax())

    def make(self, seed: int, index: int, length: int, *, depth: float | None = None) -> Example:
        """Example number `index` of a seed, as `Task.make`; texts are cut off at `length`."""
        self.check_length(length)
        if depth is not None:
            raise DataError(f"task {self.name}: depth {depth}, expected None: it has no depth")
        epoch, place = divmod(integer("index", index), len(self.items))
        generator = np.random.Generator(np.random.Philox(key=np.array([seed, epoch], np.uint64)))
        order = Permutation(len(self.items), generator)
        item = self.items[int(order(np.array([place]))[0])]
        return ask_label(self.tokens(item, length), item.label)

    def tokens(self, item: Any, length: int) -> np.ndarray:
        """An item's tokens, at most `length`: of texts the bytes, a zero before each text.

        Each of several texts is cut to its share.
        """
        share = length // len(item.texts)
        parts = [b"\0" + text.encode("utf-8", "replace") for text in item.texts]
        return np.frombuffer(b"".join(part[:share] for part in parts), np.uint8)

    def shortcut(self, example: Example) -> np.ndarray:
        """The commonest label."""
        return np.array([self._commonest])

    def decode(self, tokens: ArrayLike) -> str:
        """The ids with spaces between them."""
        return " ".join(map(str, np.asarray(tokens).ravel().tolist()))

    def _make(self, draw: Draw, length: int, depth: float | None) -> Example:
        raise NotImplementedError("examples are not drawn: `make` takes them from the files")


class ListOpsFiles(FileTask):
    """ListOps in the vocabulary of `longnet.tasks`."""

    def tokens(self, item: LabelledText, length: int) -> np.ndarray:
        """The symbols' ids.

        Raises
        ------
        DataError
            A symbol is unknown, or there are more than `length`.
        """
        words = item.texts[0].split()
        unknown = [word for word in words if word not in SYMBOLS]
        if unknown:
            expected = " ".join(SYMBOLS[:-1])
            raise DataError(f"ListOps: found {unknown[0]!r}, expected one of {expected}")
        if len(words) > length:
            raise DataError(f"ListOps: {len(words)} tokens, expected at most the length {length}")
        return np.array([SYMBOLS.index(word) for word in words], np.int32)


class ImageFiles(FileTask):
    """Images as rows of pixels, all of one size."""

    def __init__(self, name: str, files: Files, items: Sequence[Any]) -> None:
        super().__init__(name, files, items)
        self._shape = items[0].pixels.shape
        self.minimum_length = math.prod(self._shape)

    def tokens(self, item: LabelledImage | ImageFile, length: int) -> np.ndarray:
        """The pixels, row after row.

        Raises
        ------
        DataError
            The image is not of the size of the first.
        """
        pixels = item.pixels
        if pixels.shape != self._shape:
            where = getattr(item, "path", self.name)
            raise DataError(f"{where}: an image of {pixels.shape}, expected {self._shape}")
        return pixels.ravel()

    def image(self, example: Example) -> np.ndarray:
        """The picture, (height, width) uint8."""
        return example.tokens.astype(np.uint8).reshape(self._shape)


@dataclass(frozen=True)
class Files:
    """What the files of a task are.

    Attributes
    ----------
    kind : type of FileTask
    paper : str
    classes, vocab_size : int
    read : callable
        ``read(path, split)`` gives all items of a split, ``train`` or ``test``.
    splits : bool
        Whether one path has both splits.
    """

    kind: type[FileTask]
    paper: str
    classes: int
    vocab_size: int
    read: Callable[[Path, str], Sequence[Any]]
    splits: bool = True


def open_file_task(name: str, path: str | Path, split: str) -> FileTask:
    """Open a task of files.

    Parameters
    ----------
    name : str
        One of `FILE_TASKS`.
    path : path
        Where the files are.
    split : {"train", "test"}

    Raises
    ------
    ConfigError
        There is no such task.
    DataError
        Files are missing or of another form.
    """
    if name not in FILE_TASKS:
        near = difflib.get_close_matches(name, FILE_TASKS, n=3) or FILE_TASKS
        raise ConfigError(f"task {name!r}: unknown, expected {' or '.join(near)}")
    files = FILE_TASKS[name]
    items = files.read(Path(path), split)
    if not items:
        raise DataError(f"{path}: 0 examples of the {split} split, expected at least 1")
    return files.kind(name, files, items)


def _read_pathfinder(path: Path, split: str) -> Sequence[Any]:
    """Every tenth image is for testing: the published files have no split."""
    items = list(read_pathfinder(path))
    if split == "test":
        return items[::_TEST_SHARE]
    return [item for i, item in enumerate(items) if i % _TEST_SHARE]


def _read_mnist(path: Path, split: str) -> Sequence[Any]:
    """Four files by the names that MNIST gave them, gzipped or not."""
    prefix = {"train": "train", "test": "t10k"}[split]
    names = f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"
    files = [path / name if (path / name).exists() else path / f"{name}.gz" for name in names]
    return list(read_idx(*files))


_ARENA = "Tay et al. 2021, arXiv 2011.04006"
_FASHION = "Xiao et al. 2017, arXiv 1708.07747"

FILE_TASKS = {
    "lra_listops": Files(
        ListOpsFiles, _ARENA, 10, len(SYMBOLS), lambda p, _: list(read_listops(p)), splits=False
    ),
    "lra_text": Files(FileTask, _ARENA, 2, 256, lambda p, split: list(read_imdb(p, split))),
    "lra_retrieval": Files(
        FileTask, _ARENA, 2, 256, lambda p, _: list(read_retrieval(p)), splits=False
    ),
    "lra_pathfinder": Files(ImageFiles, _ARENA, 2, 256, _read_pathfinder),
    "mnist": Files(ImageFiles, _FASHION, 10, 256, _read_mnist),
}
