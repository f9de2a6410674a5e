"""Tasks over text: each byte is a token, and the answer follows the prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from longnet.tasks.draw import Draw
from longnet.tasks.protocol import IGNORE, Example, Task


class TextTask(Task):
    """A task of ASCII text. The last thing asked for is the end of the line."""

    vocab_size = 256
    window = 512

    def scores(self, example: Example, predicted: ArrayLike) -> np.ndarray:
        """Score each answer: 1 where it occurs in the predicted text, in any case and order.

        Parameters
        ----------
        example : Example
            One of this task's.
        predicted : array_like, (k,) of int
            Bytes: those predicted at ``example.asked``, or generated after ``example.prompt``.
        """
        text = self.decode(predicted).lower()
        return np.array([str(answer).lower() in text for answer in example.answers], np.float64)

    def guess(self, draw: Draw, count: int) -> list[str]:
        """`count` different answers of the right form, blind."""
        raise NotImplementedError

    def blind(self, example: Example, draw: Draw) -> np.ndarray:
        """The bytes asked for, with `guess` in the place of the answers."""
        return self.answered(example, self.guess(draw, len(example.answers)))

    def answered(self, example: Example, answers: Sequence[str]) -> np.ndarray:
        """(k,) bytes asked for, with `answers` in place of the example's own.

        An answer of another length is cut off, or followed by spaces.
        """
        text = np.where(example.targets == IGNORE, 0, example.targets).astype(np.int64)
        for (start, stop), answer in zip(example.spans, answers, strict=True):
            filled = answer.encode()[: stop - start].ljust(stop - start)
            text[start:stop] = np.frombuffer(filled, np.uint8)
        return text[example.asked]

    def decode(self, tokens: ArrayLike) -> str:
        """The text; bytes that are not UTF-8 become U+FFFD."""
        return self._checked(tokens).astype(np.uint8).tobytes().decode("utf-8", "replace")


def ask_text(
    prompt: str,
    answers: Sequence[str],
    evidence: Sequence[int],
    *,
    before: Sequence[str] | None = None,
    end: str = "\n",
    **meta: Any,
) -> Example:
    """The example that asks for `answers` after `prompt`.

    Parameters
    ----------
    prompt : str
        ASCII.
    answers : sequence of str
        In the order asked.
    evidence : sequence of int
        For each, where `prompt` shows it, or -1.
    before : sequence of str, optional
        What stands before each answer: nothing, then ", ".
    end : str
        What stands behind the last.
    **meta
        Goes into the example.
    """
    if before is None:
        before = ["", *[", "] * (len(answers) - 1)]
    text, spans = prompt, []
    for lead, answer in zip(before, answers, strict=True):
        text += lead
        spans.append((len(text) - 1, len(text) - 1 + len(answer)))
        text += answer
    ids = np.frombuffer((text + end).encode("ascii"), np.uint8).astype(np.int32)
    targets = ids[1:].copy()
    targets[: len(prompt) - 1] = IGNORE
    return Example(
        tokens=ids[:-1],
        targets=targets,
        answers=tuple(answers),
        spans=tuple(spans),
        evidence=tuple(evidence),
        meta=meta,
    )
