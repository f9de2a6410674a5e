"""LongBench: answers that a model generates, scored as its tasks' papers do."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from longnet.data import Tokenizer
from longnet.errors import DataError
from longnet.evaluate import metrics
from longnet.evaluate.readers import Question
from longnet.evaluate.readers.files import read_text
from longnet.generate import generate

if TYPE_CHECKING:
    from longnet.model import LongNet

_PROMPT = "{context}\n\n{input}\n"
_FIRST_LINE = {"trec", "triviaqa", "samsum"}  # of whose answers the first line counts
_METRICS: dict[str, Callable[[str, str], float]] = {
    **dict.fromkeys(
        ("narrativeqa", "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "musique", "triviaqa"),
        metrics.token_f1,
    ),
    **dict.fromkeys(("gov_report", "qmsum", "multi_news", "samsum"), metrics.rouge_l),
    **dict.fromkeys(("passage_count", "passage_retrieval_en"), metrics.number_share),
    **dict.fromkeys(("lcc", "repobench-p"), metrics.edit_similarity),
}
_CLASSIFICATION = "trec"


def score_answer(question: Question, prediction: str) -> float:
    """Score an answer by its dataset's metric, beside the reference that it comes nearest to.

    Raises
    ------
    DataError
        The dataset has no metric here; those in Chinese have none.
    LongNetError
        A library is missing.
    """
    name = question.dataset.removesuffix("_e")
    if name != _CLASSIFICATION and name not in _METRICS:
        known = ", ".join([*_METRICS, _CLASSIFICATION])
        raise DataError(f"LongBench: dataset {question.dataset!r}, expected one of {known}")
    if name in _FIRST_LINE:
        prediction = prediction.lstrip("\n").split("\n")[0]
    metric = _METRICS.get(name) or (
        lambda found, wanted: metrics.class_share(found, wanted, question.classes)
    )
    return metrics.best(metric, prediction, question.answers)


def read_prompts(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read LongBench's ``dataset2prompt.json``: by dataset, a text with {context} and {input}.

    Raises
    ------
    DataError
        It is missing or of another form.
    """
    expected = "LongBench's dataset2prompt.json"
    try:
        prompts = json.loads(read_text(path, expected))
    except ValueError as error:
        raise DataError(f"{path}: {error}, expected {expected}") from error
    if not isinstance(prompts, dict) or not all(isinstance(p, str) for p in prompts.values()):
        raise DataError(f"{path}: found other JSON, expected {expected}")
    return prompts


def evaluate_longbench(
    model: LongNet,
    tokenizer: Tokenizer,
    questions: Iterator[Question],
    *,
    prompts: Mapping[str, str],
    new_tokens: int = 64,
    length: int | None = None,
    examples: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Answer questions by the most likely tokens, and score the answers.

    Parameters
    ----------
    model : LongNet
    tokenizer : Tokenizer
    questions : iterator of Question
    prompts : mapping of str
        As `read_prompts` gives them; of datasets without one, context and question follow each
        other.
    new_tokens : int
        Most tokens of an answer.
    length : int, optional
        Most tokens of a prompt, the middle of which is left out where it has more.
    examples : int, optional
        How many of the first questions; by default all.

    Yields
    ------
    dict
        ``dataset``, ``length``, ``examples``, ``score`` and its ``standard_error``, 0 to 1.

    Raises
    ------
    DataError
        There is no question, or `score_answer` does not know a dataset.
    """
    scores: dict[str, list[float]] = {}
    for question in islice(questions, examples):
        # Of an answer of nothing, before time is spent on a real one.
        score_answer(question, "")
        name = question.dataset.removesuffix("_e")
        tokens = tokenizer.encode(_filled(prompts.get(name, _PROMPT), question))
        if length is not None and tokens.size > length:
            head = length // 2
            tokens = np.concatenate([tokens[:head], tokens[tokens.size - (length - head) :]])
        answer = generate(
            model, tokens, new_tokens, temperature=0, stop_token=tokenizer.end_of_text
        )
        score = score_answer(question, tokenizer.decode(answer))
        scores.setdefault(question.dataset, []).append(score)
    if not scores:
        raise DataError("LongBench: 0 questions, expected at least 1")
    for dataset, some in scores.items():
        yield {
            "dataset": dataset,
            "length": length,
            "examples": len(some),
            "score": float(np.mean(some)),
            "standard_error": metrics.standard_error(some),
        }


def _filled(prompt: str, question: Question) -> str:
    fields = {"context": question.context, "input": question.question}
    return re.sub(r"{(context|input)}", lambda match: fields[match[1]], prompt)
