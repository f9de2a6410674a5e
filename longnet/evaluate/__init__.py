"""Evaluation: scores of models, and what they are to be read against."""

from longnet.evaluate.ngram import NgramBits, ngram_bits_per_byte

__all__ = ["NgramBits", "ngram_bits_per_byte"]
