"""The tape: what was computed, in order, so that gradients can be computed backwards.

An op of `longnet.functional` computes its result and calls `record` with a function that maps the
gradient of the result to those of its inputs. `Variable.backward` calls these functions from the
last one recorded to the first, adds up the gradients that meet at one place, and drops every
record behind it, so that memory is returned while the walk goes on.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterator, Sequence
from itertools import count

from longnet import anomaly, finality
from longnet._core import Tensor, ops
from longnet.errors import LongNetError, ShapeError
from longnet.recording import is_recording, no_grad, recording

__all__ = ["Node", "Variable", "attach", "is_recording", "no_grad", "record", "recording"]

# Gradient of a result -> gradients of the inputs; None where none is wanted. Where the node
# absorbs, the gradient that the first input has so far, or None, is a second argument.
Backward = Callable[..., Sequence[Tensor | None]]

_order = count()


class Node:
    """One op on the tape.

    Attributes
    ----------
    order : int
        Counts upwards; a node comes after all that it depends on.
    inputs : tuple of Node, Variable or None
        Where gradients of the inputs go: the node that computed one, the variable itself where it
        is a leaf, None where no gradient is wanted.
    backward : callable or None
        None once the walk has passed.
    passes : bool
        Whether `backward` may return its argument, or a view of it, or one tensor twice.
    absorbs : bool
        Whether `backward` takes, and adds to, the gradient that the first input has so far.
    leaves : collection of Variable or None
        Leaves that `backward` itself gives gradients to; None where they are not known.
    """

    __slots__ = ("absorbs", "backward", "inputs", "leaves", "order", "passes")

    def __init__(
        self,
        inputs: Sequence[Variable],
        backward: Backward,
        passes: bool,
        absorbs: bool,
        leaves: Collection[Variable] | None,
    ) -> None:
        self.order = next(_order)
        self.inputs = tuple(x._target() for x in inputs)
        self.backward: Backward | None = backward
        self.passes = passes
        self.absorbs = absorbs
        self.leaves = leaves


class Variable:
    """A tensor that may have a gradient.

    Parameters
    ----------
    data : Tensor
        The value.
    requires_grad : bool
        Whether `backward` shall leave a gradient in `grad`.

    Attributes
    ----------
    data : Tensor
    requires_grad : bool
        Also true of what was computed from a variable that requires one.
    grad : Tensor or None
        Sum of the gradients of all `backward` calls since it was last None; of the shape and dtype
        of `data`. Only variables that were not computed have one.
    store : callable or None
        Called with the first gradient of a leaf, it puts that where gradients shall be summed and
        returns the place. Without it they are summed in memory that an op has made.
    """

    __slots__ = ("_node", "data", "grad", "requires_grad", "store")

    def __init__(self, data: Tensor, requires_grad: bool = False) -> None:
        self.data = data
        self.requires_grad = requires_grad
        self.grad: Tensor | None = None
        self.store: Callable[[Tensor], Tensor] | None = None
        self._node: Node | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Elements along each dimension."""
        return self.data.shape

    @property
    def dtype(self) -> str:
        """The tensor's dtype, such as 'float32'."""
        return self.data.dtype

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.dtype} {self.shape} on {self.data.device}>"

    def item(self) -> float:
        """Return the one element as a Python number."""
        return self.data.item()

    def backward(self, gradient: Tensor | float = 1.0) -> None:
        """Add the gradient of this variable to `grad` of all leaves it was computed from.

        The records are dropped on the way: another call needs another forward pass.

        Parameters
        ----------
        gradient : Tensor or float
            Of what is differentiated with respect to this variable, of its shape and dtype; a
            number needs a variable of one element.

        Raises
        ------
        LongNetError
            Nothing was recorded, or the records were dropped by an earlier call.
        ShapeError
            `gradient` has another shape.
        """
        if not self.requires_grad:
            raise LongNetError(
                "backward: the variable requires no gradient, expected one that was computed "
                "outside no_grad() from variables that do"
            )
        if isinstance(gradient, int | float):
            if self.data.size != 1:
                raise ShapeError(f"backward: shape {self.shape} and no gradient, expected one")
            value, gradient = gradient, Tensor.empty(self.shape, self.dtype, self.data.device)
            ops.fill(gradient, value)
        elif not isinstance(gradient, Tensor):
            gradient = Tensor(gradient)
        if gradient.shape != self.shape:
            raise ShapeError(f"backward: gradient of shape {gradient.shape}, expected {self.shape}")
        if self._node is None:
            self._accumulate(gradient, owned=False)
        else:
            _walk(self._node, gradient)

    def _target(self) -> Node | Variable | None:
        if not self.requires_grad:
            return None
        return self if self._node is None else self._node

    def _accumulate(self, gradient: Tensor, owned: bool) -> None:
        if gradient.shape != self.shape:
            raise ShapeError(f"gradient of shape {gradient.shape}, expected {self.shape}")
        if self.grad is None and self.store is not None:
            self.grad = self.store(gradient)
        elif self.grad is None:
            self.grad = gradient if owned else gradient.copy()
        else:
            ops.add(self.grad, self.grad, gradient, 1.0)


class _Pending:
    """The gradient of one node's result, as far as it has been summed."""

    __slots__ = ("gradient", "owned")

    def __init__(self, gradient: Tensor, owned: bool) -> None:
        self.gradient = gradient
        self.owned = owned  # whether nothing else holds the tensor, so that it may be overwritten

    def add(self, gradient: Tensor, owned: bool) -> None:
        if self.owned:
            total = self.gradient
        elif owned:
            total = gradient
        else:
            total = Tensor.empty(gradient.shape, gradient.dtype, gradient.device)
        ops.add(total, self.gradient, gradient, 1.0)
        self.gradient, self.owned = total, True


def _walk(root: Node, gradient: Tensor) -> None:
    """Visit the nodes below `root`, the latest first, so that no gradient is passed on unsummed."""
    pending = {root: _Pending(gradient, owned=False)}
    queue = [(-root.order, root)]
    with finality.following(root) as visited:
        while queue:
            node = heapq.heappop(queue)[1]
            for target in _visit(node, pending):
                heapq.heappush(queue, (-target.order, target))
            visited(node)


def _visit(node: Node, pending: dict[Node, _Pending]) -> Iterator[Node]:
    """Pass a node's gradient on; yield the nodes that got their first."""
    if node.backward is None:
        raise LongNetError(
            "backward: the graph was freed by an earlier backward(), expected a new forward pass"
        )
    targets, arguments = node.inputs, [pending.pop(node).gradient]
    if node.absorbs:
        arguments.append(_so_far(targets[0], pending))
    gradients = node.backward(*arguments)
    for i, gradient in enumerate(gradients):
        if gradient is not None:
            anomaly.check(node.backward, f"the gradient of input {i}", gradient)
    node.inputs, node.backward = (), None
    for i, (target, gradient) in enumerate(zip(targets, gradients, strict=True)):
        if target is None or gradient is None:
            continue
        is_sum = node.absorbs and i == 0
        if isinstance(target, Variable):
            if is_sum:
                target.grad = None
            target._accumulate(gradient, owned=not node.passes)
        elif target in pending and not is_sum:
            pending[target].add(gradient, owned=not node.passes)
        else:
            is_first = target not in pending
            pending[target] = _Pending(gradient, owned=not node.passes)
            if is_first:
                yield target


def _so_far(target: Node | Variable | None, pending: dict[Node, _Pending]) -> Tensor | None:
    """Return what has been summed of the gradient that goes to `target`."""
    if isinstance(target, Variable):
        return target.grad
    return pending[target].gradient if target in pending else None


def record(
    data: Tensor,
    inputs: Sequence[Variable],
    backward: Backward,
    *,
    passes: bool = False,
    absorbs: bool = False,
) -> Variable:
    """Make the variable an op returns.

    Parameters
    ----------
    data : Tensor
        The op's result.
    inputs : sequence of Variable
        What it was computed from.
    backward : callable
        Maps the gradient of `data`, which it must not write to, to one gradient per input.
    passes : bool
        Whether `backward` may return its argument, or a view of it, or one tensor twice; any other
        tensor it returns must be new.
    absorbs : bool
        Whether `backward` takes as a second argument what there is so far of the gradient of the
        first input, or None, which it must not write to either, and returns the sum with its own:
        one pass over memory instead of two where a residual connection meets a norm.

    Returns
    -------
    Variable
        On the tape if an input requires a gradient and recording is on.
    """
    anomaly.check(backward, "the result", data)
    finality.take(inputs)
    if not (is_recording() and any(x.requires_grad for x in inputs)):
        return Variable(data)
    return attach(data, inputs, backward, passes=passes, absorbs=absorbs, leaves=())


def attach(
    data: Tensor,
    inputs: Sequence[Variable],
    backward: Backward,
    *,
    passes: bool = False,
    absorbs: bool = False,
    leaves: Collection[Variable] | None = None,
) -> Variable:
    """Make a variable that is on the tape in any case: `backward` reaches leaves of its own too.

    Parameters and result are those of `record`, but for

    leaves : collection of Variable, optional
        Which ones, as `longnet.finality.leaves_taken` gives them; any, if it is not known.
    """
    out = Variable(data)
    out.requires_grad = True
    out._node = Node(inputs, backward, passes, absorbs, leaves)
    return out
