"""LongNet's mixer: dilated attention on the levels of the configuration."""

from longnet.mixers import register
from longnet.mixers.attention import Attention, Levels


@register("dilated")
class Dilated(Attention):
    """Dilated attention with the segment lengths and dilation rates of its layer."""

    def levels(self, N: int) -> Levels:
        """Return the configuration's levels, whatever N is."""
        return self.config.levels(self.layer)
