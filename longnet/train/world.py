"""The ranks that train one model together; of a run by itself there is one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import longnet
from longnet._core import Stream, Tensor
from longnet.communicator import Communicator, checks
from longnet.config import RunConfig, TrainConfig
from longnet.errors import CommunicatorError, ConfigError, LongNetError
from longnet.parallel.batch import part_of_batch
from longnet.parallel.mesh import Mesh
from longnet.random import RandomState

# What may differ: results do not depend on it.
_OWN = {"train.threads", "train.device"}


class World:
    """All ranks of a run, as one of them sees them.

    Without a communicator, or with one of a single rank, nothing here waits or sends.

    Parameters
    ----------
    config : RunConfig
        Of the run: how many ranks share a sequence, and how many share a batch.
    comm : Communicator or None
        Of all ranks.

    Attributes
    ----------
    rank, size : int
    device : str
        Where this rank computes.
    comm : Communicator or None
        None for a run by itself, as the next ones.
    mesh : Mesh or None
    sequence : Communicator or None
        The ranks that share this one's sequences; None where none does.

    Raises
    ------
    ConfigError
        On every rank: the ranks are not as many as the settings say, or differ in settings or in
        their version of longnet.
    """

    def __init__(self, config: RunConfig, comm: Communicator | None) -> None:
        train = config.train
        alone = comm is None or comm.size == 1
        self.comm = None if alone else comm
        self.rank, self.size = (0, 1) if comm is None else (comm.rank, comm.size)
        self.device = train.device if comm is None else comm.device
        self.mesh: Mesh | None = None
        self.sequence: Communicator | None = None
        with self.told():
            self.agree({"longnet's version": longnet.__version__, **_settings(config)})
            with self.alike():
                _check(train, self.size, self.device)
            if self.comm is not None:
                self.mesh = Mesh(self.comm, train.sequence_parallel, train.data_parallel)
                self.sequence = self.mesh.sequence if self.mesh.sequence.size > 1 else None

    @property
    def is_main(self) -> bool:
        """Whether this rank writes files and speaks to people."""
        return self.rank == 0

    def text(self) -> str:
        """How the ranks share the work, in a line; empty for a run by itself."""
        if self.mesh is None:
            return ""
        return (
            f"{self.size} ranks on {self.device.partition(':')[0]}: sequence parallel "
            f"{self.mesh.sequence.size}, data parallel {self.mesh.data.size}"
        )

    def part(self, shape: tuple[int, int]) -> tuple[slice, slice]:
        """Which sequences of a batch (B, N), and which rows of them, are this rank's."""
        return part_of_batch(self.mesh, shape)

    def random_state(self, seed: int) -> RandomState:
        """Where this rank's seeds come from."""
        return RandomState(
            seed, stream=self.rank, group=0 if self.mesh is None else self.mesh.data_rank
        )

    def sum(self, x: Tensor) -> None:
        """Replace `x` by the sum of all ranks' on the device; the host does not wait for a GPU."""
        if self.comm is not None:
            self.comm.all_reduce(x)

    def gather(self, value: Any) -> list[Any]:
        """Return every rank's `value`, a small one, in their order, once all have come."""
        return [value] if self.comm is None else self.comm.gather_objects(value)

    def agree(self, facts: Mapping[str, object]) -> None:
        """Check that all ranks have the same `facts`, by name.

        Raises
        ------
        ConfigError
            On every rank: the first that differs, what was found, and on which ranks.
        """
        ranks = self.gather(dict(facts))
        with self.alike():
            for name in dict.fromkeys(name for rank in ranks for name in rank):
                checks.same(name, [rank.get(name) for rank in ranks])

    def finish(self) -> None:
        """Return once all that was queued is done, on every rank.

        Raises
        ------
        CommunicatorError
            A collective has failed on one of them: what was computed with it is worthless.
        """
        if self.comm is not None:
            if self.device != "cpu":
                Stream.current(self.device).synchronize()
            self.comm.barrier()

    @contextmanager
    def alike(self) -> Iterator[None]:
        """Let every rank find the same error in the ``with`` block, before the first is gone."""
        try:
            yield
        except LongNetError:
            if self.comm is not None:
                with suppress(CommunicatorError):  # some are gone all the same
                    self.comm.barrier()
            raise

    @contextmanager
    def told(self) -> Iterator[None]:
        """Let an exception in the ``with`` block end the work of all ranks, which are told why."""
        try:
            yield
        except CommunicatorError as error:
            if self.comm is None:
                raise
            reason = self._numbered(str(error))
            self.comm.abort(reason)
            raise CommunicatorError(reason) from error
        except BaseException as error:
            if self.comm is not None:
                self.comm.abort(f"{type(error).__name__}: {error}")
            raise

    def _numbered(self, reason: str) -> str:
        """`reason` with the numbers of all ranks where it is of those that share a sequence."""
        part = self.sequence
        if part is None or not reason.startswith(f"rank {part.rank} of {part.size}, "):
            return reason
        return renumbered(reason, self.rank - part.rank, part.size, self.size)


def renumbered(reason: str, first: int, part: int, whole: int) -> str:
    """Say what happened among `part` neighbouring ranks with their numbers among the `whole`.

    Parameters
    ----------
    reason : str
        As a communicator of the part has it.
    first : int
        Number of the part's rank 0 among all.
    part, whole : int
        How many ranks they are.
    """

    def number(found: re.Match[str]) -> str:
        return found[1] + ", ".join(str(first + int(rank)) for rank in found[2].split(", "))

    # What a rank says that gives up has the numbers of all already.
    own, *told = re.split(r"(\brank \d+ (?:aborted|ended): )", reason, maxsplit=1)
    own = re.sub(r"(\branks? )(\d+(?:, \d+)*)", number, own)
    return "".join([own.replace(f" of {part}, ", f" of {whole}, "), *told])


def _settings(config: RunConfig) -> dict[str, object]:
    """The settings by their full names, but for those that ranks may have of their own."""
    return {
        f"{section}.{name}": value
        for section, values in config.to_dict().items()
        for name, value in values.items()
        if f"{section}.{name}" not in _OWN
    }


def _check(train: TrainConfig, size: int, device: str) -> None:
    sequence, data = train.sequence_parallel, train.data_parallel
    if sequence * data != size:
        raise ConfigError(
            f"--sequence-parallel {sequence} times --data-parallel {data}: found {size} "
            f"rank{'s' * (size > 1)}, expected {sequence * data}: start as many with mpirun, "
            "torchrun or srun, or give other numbers"
        )
    if not device.startswith(train.device):
        raise ConfigError(
            f"train.device: found {train.device!r}, expected {device!r}, where the ranks are"
        )
