"""Key-value retrieval: one value of a long JSON object ("lost in the middle")."""

from __future__ import annotations

from longnet.tasks.draw import Draw
from longnet.tasks.protocol import Example
from longnet.tasks.text import TextTask, ask_text
from longnet.tasks.words import uuids

_HEAD = (
    "Extract the value corresponding to the specified key in the JSON object below.\n\nJSON data:\n"
)
_UUID = 36
_RECORD = 2 * _UUID + 9  # brace or space, four quotes, colon, space, comma or brace, newline
_QUESTION = len('\nKey: ""\nCorresponding value: "') + _UUID


class KeyValueRetrieval(TextTask):
    """Which value has this key?

    Parameters
    ----------
    pairs : int, optional
        Pairs in the object; None: as many as fit in the length.
    """

    paper = "Liu et al. 2023, arXiv 2307.03172"
    chance = 2.0**-122  # the random bits of a UUID
    has_depth = True

    def __init__(self, pairs: int | None = None) -> None:
        self._pairs = pairs
        self.name = "kv_retrieval" if pairs is None else f"kv_retrieval_{pairs}"
        self._fixed = len(_HEAD) + _QUESTION + _UUID + 1  # all but the records, less the last byte
        self.minimum_length = self._fixed + (pairs or 2) * _RECORD

    def guess(self, draw: Draw, count: int) -> list[str]:
        """UUIDs."""
        return uuids(draw, count)

    def _make(self, draw: Draw, length: int, depth: float | None) -> Example:
        pairs = self._pairs or (length - self._fixed) // _RECORD
        ids = uuids(draw, 2 * pairs)
        share = draw.uniform() if depth is None else depth
        place = min(int(share * pairs), pairs - 1)
        key, value = ids[2 * place], ids[2 * place + 1]
        records = ",\n ".join(f'"{k}": "{v}"' for k, v in zip(ids[::2], ids[1::2], strict=True))
        prompt = f'{_HEAD}{{{records}}}\n\nKey: "{key}"\nCorresponding value: "'
        evidence = len(_HEAD) + place * _RECORD + len('{"": "') + _UUID
        return ask_text(prompt, [value], [evidence], end='"\n', pairs=pairs, position=place)
