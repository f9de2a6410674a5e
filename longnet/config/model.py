"""The model's settings and the sizes that follow from them."""

import dataclasses
import math
from typing import Any, ClassVar, Literal

from longnet.config.fields import fail, unknown_key
from longnet.config.settings import Settings

# xPos scales queries and keys by zeta ** (+-n / scale_base), n counted from the centre of the
# largest segment. float32 and bfloat16 hold exp(88); the rest is room for the values themselves.
_XPOS_MAX_EXPONENT = 80.0
_XPOS_MIN_ZETA = 0.4 / 1.4

_ALIBI_MAX_BLOCK = 1 << 24  # rows after which its positions start again

_GPT2_VOCABULARY = 50304  # 50,257 rounded up to a multiple of 128

_PRESETS: dict[str, dict[str, Any]] = {
    "125m": {"vocab_size": _GPT2_VOCABULARY},
    "350m": {
        "vocab_size": _GPT2_VOCABULARY,
        "num_layers": 24,
        "embed_dim": 1024,
        "num_heads": 16,
    },
    "760m": {
        "vocab_size": _GPT2_VOCABULARY,
        "num_layers": 24,
        "embed_dim": 1536,
        "num_heads": 16,
    },
    "2.7b": {
        "vocab_size": _GPT2_VOCABULARY,
        "num_layers": 32,
        "embed_dim": 2560,
        "num_heads": 32,
    },
    "demo": {
        "num_layers": 4,
        "embed_dim": 128,
        "num_heads": 4,
        "segment_lengths": (256, 1024, 4096),
        "dilation_rates": (1, 4, 16),
    },
}


@dataclasses.dataclass(frozen=True)
class ModelConfig(Settings):
    """A LongNet decoder language model.

    The defaults are the paper's base model over bytes. All fields are checked on construction.

    Attributes
    ----------
    vocab_size : int
        V, the number of token ids.
    num_layers, embed_dim, num_heads : int
        L layers of width E with H query heads of ``head_dim = E / H``.
    num_kv_heads : int, optional
        Key and value heads, a divisor of `num_heads`; None: as many. Read `kv_heads`.
    ffn_dim : int, optional
        Width of the feed-forward network; None: 4 E, or for swiglu 8 E / 3 rounded up to a
        multiple of 64. Read `ffn_width`.
    segment_lengths, dilation_rates : list of int, or list of such lists
        w and r of each level: one list for all layers, or one list per layer. Read `levels`.
    offsets : {"interleaved", "grouped"}
        A head's offset: ``h mod r`` (the paper) or ``h // ceil(H / r)`` (torchscale).
    mixer : str
        Name of a registered token mixer.
    window : int, optional
        Keys that a query sees with mixer "sliding"; None: the layer's first segment length.
    summary_columns : int
        With mixer "sparse", the keys that later blocks see of each block.
    norm_placement : {"sub", "pre"}
        "sub" is MAGNETO's sub-LayerNorm, with its initialisation.
    norm, norm_eps
        "layer_norm" or "rms_norm", and the constant added to the variance.
    activation : {"gelu", "swiglu"}
        Of the feed-forward network.
    position, position_base, xpos_scale_base
        "xpos", "rope", "alibi", "sinusoidal", "learned" or "none"; the base of wavelengths; the
        distance in tokens over which xPos scales by its zeta.
    max_positions : int, optional
        Rows of the table of "learned" positions.
    position_scaling, position_factor, position_length
        How RoPE serves contexts `position_factor` times as long as those it was trained on:
        "none", "interpolation", "ntk" or "yarn", which also needs the length trained on, in tokens.
    dropout, attention_dropout : float
        Probabilities in [0, 1).
    tie_embeddings : bool
        The output projection is the embedding matrix.
    bias : bool
        Linear layers add a bias.

    Raises
    ------
    ConfigError
        A value has the wrong type, lies outside its range, or contradicts another; the message
        names the field, the value found and the value expected.
    """

    section: ClassVar[str] = "model"

    vocab_size: int = 256
    num_layers: int = 12
    embed_dim: int = 768
    num_heads: int = 12
    num_kv_heads: int | None = None
    ffn_dim: int | None = None
    segment_lengths: tuple[int, ...] | tuple[tuple[int, ...], ...] = (
        2048,
        4096,
        8192,
        16384,
        32768,
    )
    dilation_rates: tuple[int, ...] | tuple[tuple[int, ...], ...] = (1, 2, 4, 6, 12)
    offsets: Literal["interleaved", "grouped"] = "interleaved"
    mixer: str = "dilated"
    window: int | None = None
    summary_columns: int = 128
    norm_placement: Literal["sub", "pre"] = "sub"
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    norm_eps: float = 1e-5
    activation: Literal["gelu", "swiglu"] = "gelu"
    position: Literal["xpos", "rope", "alibi", "sinusoidal", "learned", "none"] = "xpos"
    position_base: float = 10000.0
    xpos_scale_base: float = 512.0
    max_positions: int | None = None
    position_scaling: Literal["none", "interpolation", "ntk", "yarn"] = "none"
    position_factor: float = 1.0
    position_length: int | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    tie_embeddings: bool = False
    bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("vocab_size", "num_layers", "embed_dim", "num_heads", "kv_heads", "ffn_width"):
            field = {"kv_heads": "num_kv_heads", "ffn_width": "ffn_dim"}.get(name, name)
            self.check(field, getattr(self, name) >= 1, "at least 1")
        for name in ("norm_eps", "position_base", "xpos_scale_base"):
            self.check(name, getattr(self, name) > 0, "a value above 0")
        for name in ("dropout", "attention_dropout"):
            self.check(name, 0 <= getattr(self, name) < 1, "a probability in [0, 1)")
        self.check("mixer", self.mixer != "", "the name of a mixer")
        self.check("window", self.window is None or self.window >= 1, "at least 1")
        self.check("summary_columns", self.summary_columns >= 1, "at least 1")
        self._check_heads()
        self._check_position()
        self._check_levels()

    def _check_heads(self) -> None:
        heads, dim = self.num_heads, self.embed_dim
        self.check("embed_dim", dim % heads == 0, f"a multiple of num_heads = {heads}")
        fits = 16 <= self.head_dim <= 256 and self.head_dim % 8 == 0
        expected = f"{heads} heads of 16 to 256 in steps of 8, not of {self.head_dim}"
        self.check("embed_dim", fits, expected)
        self.check("num_kv_heads", heads % self.kv_heads == 0, f"a divisor of num_heads = {heads}")

    def _check_position(self) -> None:
        learned, yarn = self.position == "learned", self.position_scaling == "yarn"
        for name, needed, what in (
            ("max_positions", learned, "position 'learned'"),
            ("position_length", yarn, "position_scaling 'yarn'"),
        ):
            value = getattr(self, name)
            self.check(name, needed or value is None, f"None but with {what}")
            self.check(name, not needed or (value or 0) >= 1, f"at least 1 with {what}")
        scaled = self.position_scaling != "none"
        self.check("position_scaling", not scaled or self.position == "rope", "none but for 'rope'")
        self.check("position_factor", self.position_factor >= 1, "at least 1")
        self.check("position_factor", scaled or self.position_factor == 1, "1 with no scaling")
        if self.position == "alibi":
            self.check("embed_dim", self.head_dim <= 248, "heads of at most 248 with 'alibi'")

    def _check_levels(self) -> None:
        for name in ("segment_lengths", "dilation_rates"):
            value = getattr(self, name)
            if _is_per_layer(value) and len(value) != self.num_layers:
                found, expected = len(value), f"one list per layer, {self.num_layers} in all"
                fail(f"{self.where(name)}: number of lists", found, expected)
        layers = self.num_layers if self._levels_differ() else 1
        for layer in range(layers):
            self._check_layer_levels(layer)

    def _levels_differ(self) -> bool:
        return _is_per_layer(self.segment_lengths) or _is_per_layer(self.dilation_rates)

    def _check_layer_levels(self, layer: int) -> None:
        lengths, rates = self.levels(layer)
        suffix = f" of layer {layer}" if self._levels_differ() else ""
        at_lengths = self.where("segment_lengths") + suffix
        at_rates = self.where("dilation_rates") + suffix
        if not lengths:
            fail(at_lengths, list(lengths), "at least one level")
        if len(rates) != len(lengths):
            expected = f"{len(lengths)} rates, one for each of the segment_lengths"
            fail(at_rates, list(rates), expected)
        for length, rate in zip(lengths, rates, strict=True):
            if length < 1:
                fail(at_lengths, length, "at least 1")
            if not 1 <= rate <= length:
                fail(at_rates, rate, f"1 to its segment length, {length}")
        if self.position == "xpos":
            self._check_xpos(at_lengths, lengths)
        if self.position == "alibi" and math.lcm(*lengths) > _ALIBI_MAX_BLOCK:
            fail(at_lengths, list(lengths), f"a common multiple of at most {_ALIBI_MAX_BLOCK}")

    def _check_xpos(self, where: str, lengths: tuple[int, ...]) -> None:
        longest = max(lengths)
        for length in lengths:
            if longest % length:
                expected = f"a divisor of the longest, {longest} (or position 'rope' or 'none')"
                fail(where, length, expected)
        least = longest / 2 * -math.log(_XPOS_MIN_ZETA) / _XPOS_MAX_EXPONENT
        expected = f"at least {math.ceil(least)} for a segment of {longest}, or xPos overflows"
        self.check("xpos_scale_base", self.xpos_scale_base >= least, expected)

    @property
    def head_dim(self) -> int:
        """D, the width of one head."""
        return self.embed_dim // self.num_heads

    @property
    def kv_heads(self) -> int:
        """Hk, the number of key and value heads."""
        return self.num_heads if self.num_kv_heads is None else self.num_kv_heads

    @property
    def ffn_width(self) -> int:
        """F, the width of the feed-forward network."""
        if self.ffn_dim is not None:
            return self.ffn_dim
        if self.activation == "swiglu":
            return -(-8 * self.embed_dim // (3 * 64)) * 64
        return 4 * self.embed_dim

    def levels(self, layer: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the segment lengths and dilation rates of one layer, counted from 0."""
        if not 0 <= layer < self.num_layers:
            fail("layer", layer, f"0 to {self.num_layers - 1}")

        def pick(value: tuple[Any, ...]) -> tuple[int, ...]:
            return value[layer] if _is_per_layer(value) else value

        return pick(self.segment_lengths), pick(self.dilation_rates)

    def num_parameters(self) -> int:
        """Return the exact number of elements of all weights, a shared embedding counted once."""
        dim, ffn, kv = self.embed_dim, self.ffn_width, self.kv_heads * self.head_dim
        norm = 2 if self.norm == "layer_norm" else 1
        inner = 2 if self.activation == "swiglu" else 1
        attention = 2 * dim * dim + 2 * dim * kv + self.bias * (2 * dim + 2 * kv)
        feed_forward = (inner + 1) * dim * ffn + self.bias * (inner * ffn + dim)
        norms = norm * 2 * dim
        if self.norm_placement == "sub":
            norms += norm * (dim + ffn)
        embeddings = self.vocab_size * dim * (1 if self.tie_embeddings else 2)
        embeddings += (self.max_positions or 0) * dim
        return embeddings + self.num_layers * (attention + feed_forward + norms) + norm * dim

    @classmethod
    def preset(cls, name: str, **overrides: Any) -> "ModelConfig":
        """Return a model by name: the paper's ``125m 350m 760m 2.7b``, or the small ``demo``.

        Parameters
        ----------
        name : str
            The paper's sizes take a vocabulary of 50,304; ``demo`` takes bytes.
        **overrides
            Fields that replace the preset's.

        Raises
        ------
        ConfigError
            There is no such preset, or an override is not valid.
        """
        if not isinstance(name, str) or name not in _PRESETS:
            unknown_key(f"preset {name!r}", str(name), _PRESETS)
        return cls.from_dict({**_PRESETS[name], **overrides})


def _is_per_layer(levels: tuple[Any, ...]) -> bool:
    return bool(levels) and isinstance(levels[0], tuple)
