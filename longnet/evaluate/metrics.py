"""Official metrics of long-context benchmarks, on text.

All take a prediction and a reference, both str, and return a score between 0 and 1, but for
`word_perplexity`. Of several references the best score counts: `best`.
"""

from __future__ import annotations

import math
import re
import statistics
import string
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from longnet.errors import DataError, LongNetError

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def word_perplexity(nats: float, num_words: int) -> float:
    r"""Perplexity of a text per word, whatever its tokens are (PG-19's measure).

    .. math:: \exp\Big(-\frac{1}{W} \sum_t \\log p(x_t | x_{<t})\\Big)

    Parameters
    ----------
    nats : float
        Sum of the losses of all tokens of the text.
    num_words : int
        W, words of the text, as `count_words` counts them.

    Returns
    -------
    float
        Infinite where it overflows.

    Raises
    ------
    DataError
        There is no word.
    """
    if num_words < 1:
        raise DataError(f"num_words: found {num_words}, expected at least 1")
    mean = nats / num_words
    return math.exp(mean) if mean < 709 else math.inf


def count_words(text: str) -> int:
    """Words of a text: what white space separates."""
    return len(text.split())


def split_last_word(text: str) -> tuple[str, str]:
    """Cut a passage before its last word, the one that LAMBADA asks for.

    Returns
    -------
    context, word : str
        The word begins with the white space before it, as the tokens of a language model do.

    Raises
    ------
    DataError
        The passage has fewer than two words.
    """
    text = text.rstrip()
    context = text[: len(text) - len(text.split()[-1])].rstrip() if text else ""
    if not context:
        raise DataError(f"passage: found {text!r}, expected at least two words")
    return context, text[len(context) :]


def normalize_answer(text: str) -> str:
    """Lower case, without punctuation, articles and repeated white space (SQuAD's way)."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, reference: str) -> float:
    """1 where the two are the same after `normalize_answer`, else 0."""
    return float(normalize_answer(prediction) == normalize_answer(reference))


def token_f1(prediction: str, reference: str) -> float:
    """Harmonic mean of precision and recall of words after `normalize_answer`.

    As SQuAD and LongBench have it: words count as often as they occur, and a text without a word
    scores 0.
    """
    found, wanted = (normalize_answer(text).split() for text in (prediction, reference))
    common = (Counter(found) & Counter(wanted)).total()
    return 2 * common / (len(found) + len(wanted)) if common else 0.0


def rouge_l(prediction: str, reference: str) -> float:
    """F-measure of the longest common subsequence of words (ROUGE-L), without stemming.

    That of the `rouge-score` library. LongBench's own script takes the library `rouge`, which
    splits words at white space alone.

    Raises
    ------
    LongNetError
        The library is not installed.
    """
    return _rouge_scorer().score(reference, prediction)["rougeL"].fmeasure


def edit_similarity(prediction: str, reference: str) -> float:
    """Twice the longest common subsequence of characters over the length of both, in per cent.

    The ratio that LongBench's code tasks take, rounded to a whole per cent as there; of the
    prediction its first line counts that is no comment and no fence: `first_code_line`.

    Raises
    ------
    LongNetError
        The `rapidfuzz` library is not installed.
    """
    try:
        from rapidfuzz.fuzz import ratio
    except ImportError as error:
        raise _missing("edit similarity", "rapidfuzz") from error
    return round(ratio(first_code_line(prediction), reference)) / 100


def first_code_line(text: str) -> str:
    """The first line without a backtick, ``#`` or ``//``; empty where there is none."""
    lines = text.lstrip("\n").split("\n")
    return next((line for line in lines if not re.search(r"`|#|//", line)), "")


def number_share(prediction: str, reference: str) -> float:
    """The share of the numbers in a prediction that are the first one in the reference.

    LongBench's measure of passage counts and passage retrieval; 0 without a number.

    Raises
    ------
    DataError
        The reference has no number.
    """
    wanted = re.search(r"\d+", reference)
    if wanted is None:
        raise DataError(f"reference: found {reference!r}, expected a number in it")
    found = re.findall(r"\d+", prediction)
    return found.count(wanted[0]) / len(found) if found else 0.0


def class_share(prediction: str, reference: str, classes: Sequence[str]) -> float:
    """One over the number of classes that a prediction names, if the right one is among them.

    LongBench's measure of classification; names that are parts of the right one do not count.
    """
    named = [name for name in classes if name in prediction]
    named = [name for name in named if name == reference or name not in reference]
    return 1 / len(named) if reference in named else 0.0


def best(metric: Callable[[str, str], float], prediction: str, references: Sequence[str]) -> float:
    """The score of a prediction beside the reference that it comes nearest to.

    Raises
    ------
    DataError
        There is no reference.
    """
    if not references:
        raise DataError("references: found none, expected at least one")
    return max(metric(prediction, reference) for reference in references)


def standard_error(scores: Sequence[float]) -> float:
    """Deviation between scores over the root of their number; 0 of a single one."""
    if len(scores) < 2:
        return 0.0
    return statistics.stdev(scores) / math.sqrt(len(scores))


@cache
def _rouge_scorer() -> Any:
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ImportError as error:
        raise _missing("ROUGE-L", "rouge-score") from error
    return RougeScorer(["rougeL"], use_stemmer=False)


def _missing(what: str, library: str) -> LongNetError:
    return LongNetError(f"{what} needs the library {library}: pip install {library}")
