"""The comparisons of LongNet's paper (arXiv 2307.02486), small enough for minutes on one GPU."""
