"""Whole training steps on a GPU: longnet's and peers', and where the time of one goes."""
