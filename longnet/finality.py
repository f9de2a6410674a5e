"""When a leaf has its whole gradient: told while the backward pass still goes on.

The walk visits nodes from the last recorded to the first, so a leaf is final once the first of the
nodes that reach it was visited. A node reaches its inputs. One that differentiates something of its
own, as a checkpoint does, also reaches the leaves that were taken inside it; where it does not say
which, it may reach any. Which leaves become final after which node is thus known before the walk
begins, from the graph alone, and is the same wherever the graph is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longnet.autograd import Node, Variable

_Watch = tuple[Collection["Variable"], Callable[["Variable"], None]]

_watch: ContextVar[_Watch | None] = ContextVar("watch", default=None)
_taken: ContextVar[set[Variable] | None] = ContextVar("taken", default=None)


@contextmanager
def watching(leaves: Collection[Variable], final: Callable[[Variable], None]) -> Iterator[None]:
    """Call ``final(leaf)`` once the walk inside the ``with`` block adds nothing more to a leaf.

    Parameters
    ----------
    leaves : collection of Variable
        Those that are asked about; a set is quickest. One that the walk does not reach is final
        when it begins. One that a node could have reached and did not may never be called final.
    final : callable
        Called inside `backward`.
    """
    token = _watch.set((leaves, final))
    try:
        yield
    finally:
        _watch.reset(token)


@contextmanager
def following(root: Node) -> Iterator[Callable[[Node], None]]:
    """Yield what a walk that begins at `root` calls after each node it has visited.

    What a node walks by itself, inside the ``with`` block, is a part of its visit.
    """
    watch = _watch.get()
    if watch is None:
        yield lambda node: None
        return
    leaves, final = watch
    last = _last_visits(root, leaves)
    due: dict[Node, list[Variable]] = {}
    for leaf in leaves:
        if leaf in last:
            due.setdefault(last[leaf], []).append(leaf)

    def visited(node: Node) -> None:
        for leaf in due.pop(node, ()):
            final(leaf)

    token = _watch.set(None)
    try:
        for leaf in leaves:
            if leaf not in last:
                final(leaf)
        yield visited
    finally:
        _watch.reset(token)


@contextmanager
def leaves_taken() -> Iterator[set[Variable]]:
    """Yield a set of the leaves that ops inside the ``with`` block take, recorded or not.

    It has those alone that somebody may watch: they `store` their gradient.
    """
    taken: set[Variable] = set()
    outer = _taken.get()
    token = _taken.set(taken)
    try:
        yield taken
    finally:
        _taken.reset(token)
        if outer is not None:
            outer |= taken


def take(variables: Iterable[Variable]) -> None:
    """Note what an op takes."""
    taken = _taken.get()
    if taken is not None:
        taken.update(x for x in variables if x.store is not None)


def _last_visits(root: Node, leaves: Collection[Variable]) -> dict[Variable, Node]:
    """Of the nodes that reach a leaf, the first recorded, which is the last visited."""
    last: dict[Variable, Node] = {}
    seen, stack = {root}, [root]
    while stack:
        node = stack.pop()
        reached: Iterable[Any] = leaves if node.leaves is None else (*node.inputs, *node.leaves)
        for leaf in reached:
            if leaf in leaves and (leaf not in last or node.order < last[leaf].order):
                last[leaf] = node
        below = (x for x in node.inputs if isinstance(x, type(root)))  # the others are leaves
        new = [other for other in below if other not in seen]
        seen.update(new)
        stack += new
    return last
