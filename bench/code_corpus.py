"""Two text files of source code to train and validate on: python bench/code_corpus.py linux code

Files are taken in the order of their paths. Whole folders go to one side or the other, by a hash
of the folder's path as it was typed, so that neither side holds a neighbour of the other's files.
"""

import argparse
import zlib
from pathlib import Path

SUFFIXES = (".c", ".h")
LARGEST_FILE = 400_000  # bytes; larger ones are tables of register numbers
FOLDERS = 1000  # shares of folders are counted in
VALIDATION, TRAIN = 6, 460  # folders whose hash is below


def sources(root: Path) -> list[Path]:
    """Return the source files under a folder, in the order of their paths."""
    found = (path for path in root.rglob("*") if path.suffix in SUFFIXES and path.is_file())
    return sorted((path for path in found if path.stat().st_size <= LARGEST_FILE), key=str)


def side(path: Path) -> str | None:
    """Return the file that a source belongs to, None where it is left out."""
    share = zlib.crc32(str(path.parent).encode()) % FOLDERS
    return "validation.txt" if share < VALIDATION else "train.txt" if share < TRAIN else None


def spread(text: bytes, size: int, pieces: int) -> bytes:
    """Return `size` bytes of a text, in equal pieces that begin at even distances."""
    if len(text) <= size:
        return text
    begins = (i * (len(text) // pieces) for i in range(pieces))
    return b"".join(text[begin : begin + size // pieces] for begin in begins)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("root", type=Path, help="folder with source code in it")
    parser.add_argument("out", type=Path, help="folder for train.txt and validation.txt")
    parser.add_argument("--train-bytes", type=int, default=235_000_000)
    parser.add_argument("--validation-bytes", type=int, default=3_000_000)
    options = parser.parse_args()
    paths = sources(options.root)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, size, pieces in (
        ("train.txt", options.train_bytes, 5),
        ("validation.txt", options.validation_bytes, 1),
    ):
        text = b"".join(path.read_bytes() for path in paths if side(path) == name)
        size = (options.out / name).write_bytes(spread(text, size, pieces))
        print(f"{options.out / name}: {size:,} of {len(text):,} bytes")


if __name__ == "__main__":
    main()
