"""AdamW, and the clipping of all gradients together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from longnet._core import Tensor, ops
from longnet.arguments import integer
from longnet.errors import CheckpointError, ConfigError
from longnet.functional.buffers import cast_to, empty, zeros
from longnet.nn import Parameter
from longnet.random import derive_seed


def clip_factor(
    parameters: Iterable[Parameter], max_norm: float, divisor: float = 1.0
) -> tuple[Tensor, Tensor]:
    r"""Find by what to multiply all gradients so that their norm is at most `max_norm`.

    The host does not wait for a GPU: the numbers stay there, where `AdamW.step` takes the first.

    Parameters
    ----------
    parameters : iterable of Parameter
        Those without a gradient count as 0.
    max_norm : float
        Of all gradients taken as one vector, after they are divided by `divisor`.
    divisor : float
        Such as the number of passes that the gradients are sums over.

    Returns
    -------
    factor : Tensor (1,) float32
        :math:`\min(1, \mathrm{max\_norm} / \mathrm{norm}) / \mathrm{divisor}`; NaN where the norm
        is not finite.
    norm : Tensor (1,) float32
        Of the gradients divided by `divisor`, before clipping.

    Raises
    ------
    ConfigError
        No parameter has a gradient.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        raise ConfigError("clip_factor: found no gradient, expected at least one")
    squares = empty((len(gradients), 1), gradients[0], "float32")
    for i, gradient in enumerate(gradients):
        ops.sum_squares(squares[i], gradient)
    total, factor, norm = (empty((1,), squares) for _ in range(3))
    ops.sum_rows(total, squares)
    ops.clip(factor, norm, total, max_norm, divisor)
    return factor, norm


class AdamW:
    r"""Adam with decoupled weight decay (arXiv 1711.05101).

    .. math::

        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
        v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        w &\leftarrow w - \eta \left( \frac{m / (1 - \beta_1^t)}
            {\sqrt{v / (1 - \beta_2^t)} + \epsilon} + \lambda w \right)

    Weight decay is applied to matrices, embeddings among them, and not to vectors: biases and the
    weights of norms, which it would pull away from 1, have no decay.

    Parameters
    ----------
    parameters : iterable of Parameter
        Those of a model, which have names.
    betas : (float, float)
        :math:`\beta_1` and :math:`\beta_2`, in [0, 1).
    eps : float
        :math:`\epsilon`.
    weight_decay : float
        :math:`\lambda`.
    dtype : {'float32', 'bfloat16', 'float16'}
        Of the activations. Where it is not float32, the update leaves each weight rounded to it in
        `Parameter.rounded`, beside the float32 weight that it goes on from.
    stochastic_rounding : bool
        Round up or down at random, so that the rounded weight is right in the mean.
    seed : int
        Of stochastic rounding.

    Raises
    ------
    ConfigError
        A number is outside its range, or two parameters have the same name.
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        *,
        dtype: str = "float32",
        stochastic_rounding: bool = False,
        seed: int = 0,
    ) -> None:
        if not all(0.0 <= beta < 1.0 for beta in betas):
            raise ConfigError(f"betas: found {betas}, expected two values in [0, 1)")
        if not eps > 0.0:
            raise ConfigError(f"eps: found {eps}, expected a value above 0")
        if not weight_decay >= 0.0:
            raise ConfigError(f"weight_decay: found {weight_decay}, expected at least 0")
        self.parameters = list(parameters)
        names = [p.name for p in self.parameters]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ConfigError(f"parameters: found the name {twice!r} twice, expected it once")
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.stochastic_rounding, self.seed = stochastic_rounding, integer("seed", seed)
        self.steps = 0
        for p in self.parameters:
            p.rounded = None if dtype == "float32" else cast_to(p.data, dtype)
        self._moments = [(zeros(p.shape, p.data), zeros(p.shape, p.data)) for p in self.parameters]

    def step(self, learning_rate: float, factor: Tensor | None = None) -> None:
        r"""Update every parameter that has a gradient.

        Parameters
        ----------
        learning_rate : float
            :math:`\eta`.
        factor : Tensor (1,) float32, optional
            What all gradients are multiplied by, as `clip_factor` gives it. Where it is not finite
            no parameter changes.
        """
        self.steps += 1
        for parameter, (m, v) in zip(self.parameters, self._moments, strict=True):
            if parameter.grad is None:
                continue
            ops.adamw(
                weight=parameter.data,
                m=m,
                v=v,
                rounded=parameter.rounded,
                grad=parameter.grad,
                factor=factor,
                learning_rate=learning_rate,
                beta1=self.betas[0],
                beta2=self.betas[1],
                eps=self.eps,
                weight_decay=self.weight_decay if parameter.data.ndim >= 2 else 0.0,
                step=self.steps,
                stochastic=self.stochastic_rounding and parameter.rounded is not None,
                seed=derive_seed(self.seed, f"{parameter.name}/{self.steps}"),
            )

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def _named_tensors(self) -> dict[str, Tensor]:
        tensors = {
            f"{parameter.name}.{letter}": moment
            for parameter, moments in zip(self.parameters, self._moments, strict=True)
            for letter, moment in zip("mv", moments, strict=True)
        }
        if self.stochastic_rounding:  # else they follow from the weights
            tensors |= {
                f"{p.name}.rounded": p.rounded for p in self.parameters if p.rounded is not None
            }
        return tensors

    def state_dict(self) -> dict[str, Any]:
        """Return the state; on the CPU its arrays are the optimizer's own memory.

        Returns
        -------
        dict
            ``<name>.m`` and ``<name>.v``, float32 arrays of the parameter's shape, for each
            parameter, ``<name>.rounded`` with stochastic rounding, and ``steps``, the number of
            updates made.
        """
        arrays = {name: x.to("cpu").numpy() for name, x in self._named_tensors().items()}
        return {**arrays, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was called; on an error, nothing changes.

        The parameters hold their weights already. Rounded weights are taken where this optimizer
        rounds at random and the state has them, else made anew.

        Raises
        ------
        CheckpointError
            A name is missing or unknown, a shape or dtype is another, or a value cannot be.
        """
        tensors = self._named_tensors()
        rounded = {f"{p.name}.rounded" for p in self.parameters}
        for name in (*tensors, "steps"):
            if name not in state and name not in rounded:
                raise CheckpointError(f"optimizer: found no {name}, expected it")
        for name, found in state.items():
            if name == "steps":
                if type(found) is not int or found < 0:
                    raise CheckpointError(
                        f"optimizer: steps: found {found!r}, expected an int >= 0"
                    )
            elif name in tensors:
                _check(name, found, tensors[name])
            elif name not in rounded:
                raise CheckpointError(f"optimizer: found {name}, expected no array of this name")
        self.steps = state["steps"]
        for parameter in self.parameters:
            parameter.refresh()
        for name in tensors.keys() & state.keys():
            array = Tensor(np.ascontiguousarray(state[name]))
            ops.cast(tensors[name], array.to(tensors[name].device))


def _check(name: str, found: object, tensor: Tensor) -> None:
    if not isinstance(found, np.ndarray):
        raise CheckpointError(f"optimizer: {name}: found {found!r}, expected an array")
    if str(found.dtype) != tensor.dtype or found.shape != tensor.shape:
        raise CheckpointError(
            f"optimizer: {name}: found {found.dtype} {found.shape}, expected {tensor.dtype} "
            f"{tensor.shape}"
        )
    # In float64 a sum of finite numbers of these dtypes is finite.
    if not math.isfinite(found.sum(dtype=np.float64)):
        raise CheckpointError(f"optimizer: {name}: found NaN or infinity, expected finite numbers")
    if name.endswith(".v") and found.size and found.min() < 0:
        raise CheckpointError(f"optimizer: {name}: found {found.min()}, expected at least 0")
