"""AdamW, and the norm of all gradients together."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from longnet._core import Tensor, ops
from longnet.errors import CheckpointError, ConfigError
from longnet.functional.buffers import empty, zeros
from longnet.nn import Parameter


def global_norm(parameters: Iterable[Parameter]) -> float:
    """Return the Euclidean norm of all gradients taken as one vector.

    Parameters
    ----------
    parameters : iterable of Parameter
        Those without a gradient count as 0.

    Returns
    -------
    float
        Not finite where a gradient is not.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return 0.0
    squares = empty((len(gradients), 1), gradients[0], "float32")
    for i, gradient in enumerate(gradients):
        ops.sum_squares(squares[i], gradient)
    total = empty((1,), squares)
    ops.sum_rows(total, squares)
    return math.sqrt(total.item())


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
        self.steps = 0
        self._moments = [(zeros(p.shape, p.data), zeros(p.shape, p.data)) for p in self.parameters]

    def step(self, learning_rate: float, grad_scale: float = 1.0) -> None:
        r"""Update every parameter that has a gradient.

        Parameters
        ----------
        learning_rate : float
            :math:`\eta`.
        grad_scale : float
            Factor of all gradients, as clipping and gradient accumulation want it.
        """
        self.steps += 1
        for parameter, moments in zip(self.parameters, self._moments, strict=True):
            if parameter.grad is None:
                continue
            ops.adamw(
                parameter.data,
                *moments,
                parameter.grad,
                learning_rate,
                *self.betas,
                self.eps,
                self.weight_decay if parameter.data.ndim >= 2 else 0.0,
                self.steps,
                grad_scale,
            )

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    def _named_moments(self) -> dict[str, Tensor]:
        return {
            f"{parameter.name}.{letter}": moment
            for parameter, moments in zip(self.parameters, self._moments, strict=True)
            for letter, moment in zip("mv", moments, strict=True)
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the state, its arrays over the optimizer's own memory.

        Returns
        -------
        dict
            ``<name>.m`` and ``<name>.v``, float32 arrays of the parameter's shape, for each
            parameter, and ``steps``, the number of updates made.
        """
        arrays = {name: moment.numpy() for name, moment in self._named_moments().items()}
        return {**arrays, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was called; on an error, nothing changes.

        Raises
        ------
        CheckpointError
            A name is missing or unknown, a shape or dtype is another, or a value cannot be.
        """
        moments = self._named_moments()
        for name in (*moments, "steps"):
            if name not in state:
                raise CheckpointError(f"optimizer: found no {name}, expected it")
        for name, found in state.items():
            if name == "steps":
                if type(found) is not int or found < 0:
                    raise CheckpointError(
                        f"optimizer: steps: found {found!r}, expected an int >= 0"
                    )
            elif name not in moments:
                raise CheckpointError(f"optimizer: found {name}, expected no array of this name")
            else:
                _check(name, found, moments[name].shape)
        self.steps = state["steps"]
        for name, moment in moments.items():
            ops.cast(moment, Tensor(np.ascontiguousarray(state[name])))


def _check(name: str, found: object, shape: tuple[int, ...]) -> None:
    if not isinstance(found, np.ndarray):
        raise CheckpointError(f"optimizer: {name}: found {found!r}, expected an array")
    if found.dtype != np.float32 or found.shape != shape:
        raise CheckpointError(
            f"optimizer: {name}: found {found.dtype} {found.shape}, expected float32 {shape}"
        )
    # In float64 a sum of finite float32 numbers is finite.
    if not math.isfinite(found.sum(dtype=np.float64)):
        raise CheckpointError(f"optimizer: {name}: found NaN or infinity, expected finite numbers")
    if name.endswith(".v") and found.size and found.min() < 0:
        raise CheckpointError(f"optimizer: {name}: found {found.min()}, expected at least 0")
