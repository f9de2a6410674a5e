"""The Long Range Arena's files and images in IDX files: inputs with a class."""

from __future__ import annotations

import gzip
import math
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np

from longnet.errors import DataError
from longnet.evaluate.readers.files import Location, need_folder, open_text, read_text, table

_SENTIMENTS = ("neg", "pos")
_IDX_BYTES = 8  # the type code of unsigned bytes


@dataclass(frozen=True)
class LabelledText:
    """A text, or several, with a class.

    Attributes
    ----------
    texts : tuple of str
        One, or the two documents of a pair.
    label : int
    """

    texts: tuple[str, ...]
    label: int


@dataclass(frozen=True)
class LabelledImage:
    """A grey image with a class.

    Attributes
    ----------
    pixels : numpy.ndarray, (height, width) uint8
    label : int
    """

    pixels: np.ndarray
    label: int


@dataclass(frozen=True)
class ImageFile:
    """A PNG with a class, read when its `pixels` are wanted.

    Attributes
    ----------
    path : Path
    label : int
    """

    path: Path
    label: int

    @property
    def pixels(self) -> np.ndarray:
        """The image, (height, width) uint8.

        Raises
        ------
        DataError
            It is missing or no image.
        """
        from PIL import Image, UnidentifiedImageError  # comes with matplotlib

        try:
            with Image.open(self.path) as image:
                return np.asarray(image.convert("L"))
        except UnidentifiedImageError as error:
            raise DataError(f"{self.path}: found no image, expected a PNG") from error
        except OSError as error:
            raise DataError(f"{self.path}: {error.strerror or error}, expected a PNG") from error


def read_listops(path: Location) -> Iterator[LabelledText]:
    """Read ListOps from a file such as ``basic_test.tsv``, with the columns Source and Target.

    The parentheses that the published files have around every pair are left out, as they say
    nothing: an expression reads ``[MAX 4 [MIN 2 3 ] ]``.

    Raises
    ------
    DataError
        The file is missing or of another form.
    """
    rows = table(path, ("Source", "Target"), "ListOps' table", header=True, delimiter="\t")
    for line, row in rows:
        label = _label(f"{path}, line {line}", row["Target"], 10)
        words = [word for word in row["Source"].split() if word not in ("(", ")")]
        yield LabelledText((" ".join(words),), label)


def read_retrieval(path: Location) -> Iterator[LabelledText]:
    """Read the pairs of documents of a file such as ``new_aan_pairs.test.tsv``.

    It has no header; its columns are the class (1: one cites the other), two ids and two texts.

    Raises
    ------
    DataError
        The file is missing or of another form.
    """
    columns = ("label", "id1", "id2", "text1", "text2")
    for line, row in table(path, columns, "pairs of documents", header=False, delimiter="\t"):
        label = _label(f"{path}, line {line}", row["label"].removesuffix(".0"), 2)
        yield LabelledText((row["text1"], row["text2"]), label)


def read_imdb(folder: Location, split: str = "test") -> Iterator[LabelledText]:
    """Read reviews from a folder ``aclImdb``: ``test/neg/0_2.txt`` is of class 0, ``pos`` of 1.

    Raises
    ------
    DataError
        A folder is missing, or holds no review.
    """
    for label, name in enumerate(_SENTIMENTS):
        reviews = need_folder(Path(folder) / split / name, "reviews, such as aclImdb/test/pos")
        files = sorted(reviews.glob("*.txt"))
        if not files:
            raise DataError(f"{reviews}: 0 files .txt, expected at least 1")
        for file in files:
            yield LabelledText((read_text(file, "a review"),), label)


def read_pathfinder(folder: Location) -> Iterator[ImageFile]:
    """Read the lists of Pathfinder's images in a folder such as ``curv_contour_length_14``.

    Its ``metadata/*.npy`` are texts in spite of their name: each line has an image's folder and
    name, a number, and its class. An image of no bytes, of which the published data have one, is
    left out with a warning.

    Raises
    ------
    DataError
        A folder or an image is missing, or a list is of another form.
    """
    folder = need_folder(folder, "a folder of Pathfinder: imgs, metadata")
    metadata = need_folder(folder / "metadata", "Pathfinder's lists of images")
    lists = sorted(metadata.glob("*.npy"), key=lambda path: (len(path.stem), path.stem))
    if not lists:
        raise DataError(f"{metadata}: 0 files .npy, expected at least 1")
    for path in lists:
        with open_text(path, "a list of images") as file:
            lines = _decoded(file, path)
        for number, line in enumerate(lines, start=1):
            where, words = f"{path}, line {number}", line.split()
            if len(words) < 4:
                raise DataError(
                    f"{where}: {len(words)} words, expected folder, name, number, class"
                )
            label = _label(where, words[3], 2)
            image = folder / words[0] / words[1]
            try:
                size = image.stat().st_size
            except OSError as error:
                raise DataError(f"{where}: {image}: {error.strerror}, expected a PNG") from error
            if size:
                yield ImageFile(image, label)
            else:
                warnings.warn(f"{image}: 0 bytes, left out", stacklevel=2)


def read_idx(images: Location, labels: Location) -> Iterator[LabelledImage]:
    """Read images and classes as MNIST and Fashion-MNIST have them, gzipped or not.

    Parameters
    ----------
    images, labels : path
        Such as ``t10k-images-idx3-ubyte.gz`` and ``t10k-labels-idx1-ubyte.gz``.

    Raises
    ------
    DataError
        A file is missing or of another form, or the two do not fit each other.
    """
    pixels, classes = _read_idx(images, 3), _read_idx(labels, 1)
    if len(pixels) != len(classes):
        raise DataError(f"{labels}: {len(classes)} labels, expected {len(pixels)} as in {images}")
    for image, label in zip(pixels, classes.tolist(), strict=True):
        yield LabelledImage(image, label)


def _read_idx(path: Location, rank: int) -> np.ndarray:
    """The unsigned bytes of an IDX file, whose header is big-endian: 0, 0, type, rank, sizes."""
    path = Path(path)
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: {reason}, expected an IDX file") from error
    if content[:4] != bytes((0, 0, _IDX_BYTES, rank)):
        found = content[:4].hex(" ") or "no bytes"
        raise DataError(f"{path}: begins with {found}, expected 00 00 08 {rank:02} (IDX)")
    start = 4 + 4 * rank
    shape = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    if len(content) != start + math.prod(shape):
        raise DataError(
            f"{path}: {len(content)} bytes, expected {start} and one for each element of {shape}"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _decoded(file: TextIO, path: Path) -> list[str]:
    try:
        return file.readlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: {error.reason}, expected text") from error


def _label(where: str, text: str, classes: int) -> int:
    if not text.isdecimal() or int(text) >= classes:
        raise DataError(f"{where}: class {text!r}, expected 0 to {classes - 1}")
    return int(text)
