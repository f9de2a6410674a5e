"""Naive NumPy references that the fast code is checked against; none of them imports longnet."""
