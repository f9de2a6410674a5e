"""The optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np

from longnet._core import Tensor, ops
from longnet.arguments import integer
from longnet.communicator import Communicator
from longnet.errors import CheckpointError, ConfigError
from longnet.nn import Parameter
from longnet.optim.sharded import Sharded
from longnet.optim.whole import Piece, Whole
from longnet.random import derive_seed


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
    comm : Communicator, optional
        Of ranks that have the same parameters; each of them makes its own optimizer, and then calls
        the same methods. Gradients are summed over the ranks, so that the loss is the sum of
        theirs. Each rank has the moments of its share of the elements alone and updates that, and
        all end with the same weights. They begin with those of rank 0.

    Raises
    ------
    ConfigError
        A number is outside its range, or two parameters have the same name; with `comm`, on every
        rank, if the ranks differ in any of these or in the parameters' shapes.
    DeviceError
        A parameter is not on the communicator's device.
    TypeError
        `comm` is no communicator.
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
        comm: Communicator | None = None,
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
        self._comm = comm
        if comm is None:
            self._state: Whole | Sharded = Whole(self.parameters, dtype)
        elif not isinstance(comm, Communicator):
            raise TypeError(f"comm: found {comm!r}, expected a longnet.Communicator")
        else:
            settings = {
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "stochastic_rounding": stochastic_rounding,
                "seed": seed,
            }
            self._state = Sharded(self.parameters, dtype, comm, settings)

    def gradients_final(self) -> AbstractContextManager[None]:
        """Return a context manager for the backward pass that completes the gradients of a step.

        With `comm`, a bucket of gradients leaves for the sum over the ranks as soon as this pass is
        done with it, and what is left leaves at its end. It has one call of `backward`. A step
        without it sums everything when the sum is needed. Without `comm` it does nothing.

        Raises
        ------
        LongNetError
            They were summed already: `zero_grad` comes first.
        """
        return self._state.gradients_final()

    def clip_factor(self, max_norm: float, divisor: float = 1.0) -> tuple[Tensor, Tensor]:
        """Find by what to multiply the gradients, as `longnet.optim.clip_factor` does.

        With `comm` it is that of the sums over all ranks: every rank calls it, and gets the same.
        """
        return self._state.clip_factor(max_norm, divisor)

    def step(self, learning_rate: float, factor: Tensor | None = None) -> None:
        r"""Update every parameter that has a gradient, with `comm` on any rank.

        Parameters
        ----------
        learning_rate : float
            :math:`\eta`, the same on all ranks.
        factor : Tensor (1,) float32, optional
            What all gradients are multiplied by, as `clip_factor` gives it. Where it is not finite
            no parameter changes.
        """
        self.steps += 1
        self._state.update(partial(self._update, learning_rate, factor))

    def _update(self, learning_rate: float, factor: Tensor | None, piece: Piece) -> None:
        parameter = piece.parameter
        ops.adamw(
            weight=piece.weight,
            m=piece.m,
            v=piece.v,
            rounded=piece.rounded,
            grad=piece.gradient,
            factor=factor,
            learning_rate=learning_rate,
            beta1=self.betas[0],
            beta2=self.betas[1],
            eps=self.eps,
            weight_decay=self.weight_decay if parameter.data.ndim >= 2 else 0.0,
            step=self.steps,
            stochastic=self.stochastic_rounding and piece.rounded is not None,
            seed=derive_seed(self.seed, f"{parameter.name}/{self.steps}"),
            first=piece.first,
        )

    def zero_grad(self) -> None:
        """Drop all gradients."""
        self._state.zero_grad()

    def state_dict(self) -> dict[str, Any]:
        """Return the state, which has the same format with and without `comm`.

        With `comm` every rank calls it. The arrays come together on rank 0, one at a time on a GPU,
        and the other ranks get ``steps`` alone. On the CPU without `comm` the arrays are the
        optimizer's own memory.

        Returns
        -------
        dict
            ``<name>.m`` and ``<name>.v``, float32 arrays of the parameter's shape, for each
            parameter, ``<name>.rounded`` with stochastic rounding, and ``steps``, the number of
            updates made.
        """
        state: dict[str, Any] = dict(self._state.moments())
        if self._comm is None or self._comm.rank == 0:
            for name, rounded in self._rounded().items():
                state[name] = rounded.to("cpu").numpy()
        return {**state, "steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state_dict` was called; on an error, nothing changes.

        The parameters hold their weights already. Rounded weights are taken where this optimizer
        rounds at random and the state has them, else made anew. With `comm` every rank calls it
        with the whole state, whatever ranks that comes from, and keeps its part.

        Raises
        ------
        CheckpointError
            A name is missing or unknown, a shape or dtype is another, or a value cannot be. With
            `comm`, on every rank.
        """
        rounded = self._rounded()
        error = None
        try:
            self._check(state, rounded)
        except CheckpointError as found:
            error = found
        if self._comm is not None:
            self._agree_on(state, error)
        if error is not None:
            raise error
        self.steps = state["steps"]
        self._state.load_moments(state)
        for parameter in self.parameters:
            parameter.refresh()
        for name in rounded.keys() & state.keys():
            array = Tensor(np.ascontiguousarray(state[name]))
            ops.cast(rounded[name], array.to(rounded[name].device))

    def _rounded(self) -> dict[str, Tensor]:
        """Rounded weights that are state: others follow from the weights."""
        if not self.stochastic_rounding:
            return {}
        return {f"{p.name}.rounded": p.rounded for p in self.parameters if p.rounded is not None}

    def _check(self, state: Mapping[str, Any], rounded: Mapping[str, Tensor]) -> None:
        expected = {f"{p.name}.{x}": ("float32", p.shape) for p in self.parameters for x in "mv"}
        for name in (*expected, "steps"):
            if name not in state:
                raise CheckpointError(f"optimizer: found no {name}, expected it")
        expected |= {name: (tensor.dtype, tensor.shape) for name, tensor in rounded.items()}
        for_nobody = {f"{p.name}.rounded" for p in self.parameters}
        for name, found in state.items():
            if name == "steps":
                if type(found) is not int or found < 0:
                    raise CheckpointError(
                        f"optimizer: steps: found {found!r}, expected an int >= 0"
                    )
            elif name in expected:
                _check_array(name, found, *expected[name])
            elif name not in for_nobody:
                raise CheckpointError(f"optimizer: found {name}, expected no array of this name")

    def _agree_on(self, state: Mapping[str, Any], error: CheckpointError | None) -> None:
        """Tell all ranks that one cannot load, or that they are to load different states."""
        assert self._comm is not None
        for rank, other in enumerate(self._comm.gather_objects(error and str(error))):
            if other is not None and error is None:
                raise CheckpointError(f"rank {rank}: {other}")
        if error is None:
            self._comm.agree("optimizer: steps", state["steps"])


def _check_array(name: str, found: object, dtype: str, shape: tuple[int, ...]) -> None:
    if not isinstance(found, np.ndarray):
        raise CheckpointError(f"optimizer: {name}: found {found!r}, expected an array")
    if str(found.dtype) != dtype or found.shape != shape:
        raise CheckpointError(
            f"optimizer: {name}: found {found.dtype} {found.shape}, expected {dtype} {shape}"
        )
    # In float64 a sum of finite numbers of these dtypes is finite.
    if not math.isfinite(found.sum(dtype=np.float64)):
        raise CheckpointError(f"optimizer: {name}: found NaN or infinity, expected finite numbers")
    if name.endswith(".v") and found.size and found.min() < 0:
        raise CheckpointError(f"optimizer: {name}: found {found.min()}, expected at least 0")
