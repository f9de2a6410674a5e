"""What the tests of ops on rows a step apart share."""

import pytest

import longnet

# (B, N, heads, D), M, starts, step: a start a head, far away, at the end, and nothing in many ways
CASES = [
    ((2, 37, 3, 5), 7, [0, 1, 2], 3),
    ((1, 5, 4, 16), 3, [-(2**62), -1, 2**62, 4], 2**62),
    ((1, 9, 2, 3), 1, [8, 9], 1),
    ((2, 9, 2, 3), 0, [0, 1], 1),
    ((0, 9, 2, 3), 4, [0, 1], 1),
    ((2, 0, 2, 8), 4, [0, -1], 1),
    ((2, 9, 2, 0), 4, [0, 1], 1),
    ((2, 9, 0, 4), 4, [], 1),
]


def check_bad_values(call):
    """A step and starts that cannot be, of a call with two starts."""
    for step in (0, -3, 2**62 + 1):
        with pytest.raises(
            longnet.ConfigError, match=rf"_rows: step is {step}, expected 1 to 2\^62"
        ):
            call(step=step)
    with pytest.raises(longnet.ConfigError, match=r"starts\[1\] is -4611686018427387905, expected"):
        call(starts=[0, -(2**62) - 1])
    with pytest.raises(longnet.ConfigError, match=r"starts\[0\] is 4611686018427387905, expected"):
        call(starts=[2**62 + 1, 0])
