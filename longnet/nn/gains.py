"""How large the weights begin, by the placement of the norms."""

from math import log, sqrt

from longnet.config import Config


def residual_gains(config: Config) -> tuple[float, float]:
    r"""Return the gains of Xavier's initialisation for the two ends of a residual branch.

    Queries and keys have gain 1 in any case.

    Parameters
    ----------
    config : Config
        With `norm_placement` "sub", both gains are MAGNETO's :math:`\sqrt{\log 2L}` for a decoder
        of L layers (arXiv 2210.06423, figure 2). With "pre", what enters the residual stream is
        divided by the square root of its 2 L terms, as in GPT-2.

    Returns
    -------
    inner : float
        Of the values' projection and of the first layer of the feed-forward network.
    outer : float
        Of the output projection and of the last layer of the feed-forward network.
    """
    if config.norm_placement == "sub":
        gain = sqrt(log(2 * config.num_layers))
        return gain, gain
    return 1.0, 1.0 / sqrt(2 * config.num_layers)
