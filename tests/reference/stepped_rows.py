"""Which rows of a sequence ops on rows a step apart see."""

from collections.abc import Iterator, Sequence


def stepped_rows(
    batch: int, length: int, rows: int, starts: Sequence[int], step: int
) -> Iterator[tuple[int, int, int, int]]:
    """Batch item b, head h, row m of the head and the row n of the sequence that it stands for."""
    for b in range(batch):
        for h, start in enumerate(starts):
            for m in range(rows):
                n = int(start) + m * step
                if 0 <= n < length:
                    yield b, h, m, n
