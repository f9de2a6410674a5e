"""Which steps are measured."""

from dataclasses import dataclass

MODEL = "125m"  # the preset: 12 layers of 768, vocabulary 50,304, the paper's levels
STEP_TOKENS = 65536


@dataclass(frozen=True)
class Case:
    """Training steps of one model and one shape of batch.

    Attributes
    ----------
    name : str
    implementation : str
        A key of `longnet.bench.training.steps.IMPLEMENTATIONS`.
    tokens : int
        N, of a sequence.
    batch : int
        Sequences of a step.
    recompute : str
        As `TrainConfig.recompute`.
    """

    name: str
    implementation: str
    tokens: int
    batch: int = 1
    recompute: str = "none"


def one_step(implementation: str, tokens: int, recompute: str = "none") -> Case:
    """A step of `STEP_TOKENS` tokens, or of one longer sequence."""
    name = f"{implementation}, {tokens:,}" + ("" if recompute == "none" else f", {recompute}")
    return Case(name, implementation, tokens, max(1, STEP_TOKENS // tokens), recompute)


GROUPS: dict[str, list[Case]] = {
    "step": [one_step("longnet", 32768)],
    "peers": [one_step("pytorch dense", 2048), one_step("torchscale", 32768)],
    "lengths": [one_step("longnet", n, "block") for n in (8192, 32768, 131072, 524288, 1 << 20)],
    "longest": [one_step("longnet", n, "block") for n in (1 << 21, 1 << 22)],
}
