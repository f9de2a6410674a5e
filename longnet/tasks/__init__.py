"""Tasks that make themselves: seeded, of any length, nothing to download. NumPy only.

task = longnet.tasks.get("niah_single_2")
example = task.make(seed=0, index=0, length=4096, depth=0.5)
task.score(example, predicted)
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial

from longnet.errors import ConfigError
from longnet.tasks.batches import TaskBatches, collate
from longnet.tasks.key_value import KeyValueRetrieval
from longnet.tasks.listops import ListOps
from longnet.tasks.needle import Needle
from longnet.tasks.passkey import Passkey
from longnet.tasks.pathfinder import PICTURES, Pathfinder
from longnet.tasks.protocol import IGNORE, Example, Task, shortcut_score
from longnet.tasks.recall import AssociativeRecall, InductionHeads
from longnet.tasks.ruler_needles import NEEDLE_TASKS, NeedleTask
from longnet.tasks.ruler_tracing import VariableTracing
from longnet.tasks.ruler_words import CommonWords, FrequentWords
from longnet.tasks.selective_copying import SelectiveCopying

__all__ = ["IGNORE", "Example", "Task", "TaskBatches", "collate", "get", "names", "shortcut_score"]

_TASKS: dict[str, Callable[[], Task]] = {
    "induction_heads": InductionHeads,
    "associative_recall": AssociativeRecall,
    "selective_copying": SelectiveCopying,
    "passkey": Passkey,
    "needle": Needle,
    "kv_retrieval": KeyValueRetrieval,
    **{f"kv_retrieval_{n}": partial(KeyValueRetrieval, n) for n in (75, 140, 300)},
    **{name: partial(NeedleTask, name) for name in NEEDLE_TASKS},
    "vt": VariableTracing,
    "cwe": CommonWords,
    "fwe": FrequentWords,
    "listops": ListOps,
    **{name: partial(Pathfinder, name) for name in PICTURES},
}


def names() -> list[str]:
    """Names of all tasks, simple ones first."""
    return list(_TASKS)


def get(name: str) -> Task:
    """The task of that name.

    Raises
    ------
    ConfigError
        There is none; the message names those that are near.
    """
    if not isinstance(name, str) or name not in _TASKS:
        near = difflib.get_close_matches(str(name), _TASKS, n=3, cutoff=0.4)
        expected = " or ".join(near) if near else f"one of {', '.join(_TASKS)}"
        raise ConfigError(f"task {name!r}: unknown, expected {expected}")
    return _TASKS[name]()
