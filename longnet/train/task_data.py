"""A task as the data of a run: examples that make themselves, or that lie in files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from longnet import tasks
from longnet.config import DataConfig, RunConfig, TrainConfig
from longnet.data import ByteTokenizer
from longnet.errors import ConfigError
from longnet.evaluate.file_tasks import FILE_TASKS, open_file_task
from longnet.evaluate.perplexity import Evaluation
from longnet.evaluate.tasks import check_vocabulary, held_out, score_examples
from longnet.tasks import Example, Task, TaskBatches, collate

if TYPE_CHECKING:
    from longnet.model import LongNet
    from longnet.parallel import Mesh


class TaskVocabulary(ByteTokenizer):
    """The ids of a task in the place of a tokenizer, so that a run is resumed on its own task."""

    def __init__(self, task: Task) -> None:
        self.name = self.fingerprint = f"task {task.name}"
        self.vocab_size = task.vocab_size


class MixedBatches(TaskBatches):
    """Batches of a task that take turns in length: the full one, half of it, and so on.

    Parameters
    ----------
    task, batch_size, length, seed, workers
        As `TaskBatches` takes them.
    shortest : int
        No example is made for less.
    """

    def __init__(
        self,
        task: Task,
        batch_size: int,
        length: int,
        seed: int,
        shortest: int,
        *,
        workers: int = 0,
    ) -> None:
        super().__init__(task, batch_size, length, seed, workers=workers)
        task.check_length(shortest)
        self._shortest = shortest
        self._lengths = [length >> i for i in range((length // shortest).bit_length())]

    def __next__(self) -> tuple[np.ndarray, np.ndarray]:
        """The next batch, (B, n) int32 each, n the length whose turn it is."""
        length = self._length_of(self._position)
        return collate(self.take(self._batch_size), length, self._task.pad)

    def _length_of(self, index: int) -> int:
        return self._lengths[index // self._batch_size % len(self._lengths)]

    def _request(self, index: int) -> tuple[int, int, int]:
        return self._seed, index, self._length_of(index)

    def state_dict(self) -> dict[str, Any]:
        """As `TaskBatches.state_dict`."""
        return {**super().state_dict(), "shortest": self._shortest}


@dataclass(frozen=True)
class TaskData:
    """What a run on a task is trained and evaluated on.

    Attributes
    ----------
    train, validation : Task
        Two where examples lie in files, else one and the same.
    examples : sequence of Example
        Of `validation`, which the training does not see.
    length : int
        N, most tokens of an example.
    shortest : int or None
        Of training examples, where they are of several lengths.
    workers : int
        Processes that make them.
    tokenizer : Tokenizer
    inputs, targets : numpy.ndarray, (W, N) int32
        The examples as windows.
    """

    train: Task
    validation: Task
    examples: Sequence[Example]
    length: int
    shortest: int | None
    workers: int
    tokenizer: TaskVocabulary
    inputs: np.ndarray
    targets: np.ndarray

    is_bytes = False

    @property
    def fingerprint(self) -> dict[str, str]:
        """What runs on the same data have in common, by setting."""
        windows = blake2b(self.inputs, digest_size=16)
        windows.update(self.targets)
        return {"data.task": self.train.name, "data.validation": windows.hexdigest()}

    def batches(self, batch_size: int, sequence_length: int, seed: int) -> TaskBatches:
        """Batches to train on."""
        shape = batch_size, sequence_length
        if self.shortest is None:
            return TaskBatches(self.train, *shape, seed, workers=self.workers)
        return MixedBatches(self.train, *shape, seed, self.shortest, workers=self.workers)

    def evaluate(self, model: LongNet, settings: TrainConfig, mesh: Mesh | None) -> Evaluation:
        """Score the examples; the loss is that of what is asked, in nats a token."""
        scores, nats, _ = score_examples(
            model, self.validation, self.examples, self.length, settings.batch_size, mesh
        )
        return Evaluation.of_loss(float(nats.mean()), accuracy=float(scores.mean()))

    def text(self) -> str:
        """The data in a line."""
        return (
            f"task {self.train.name} ({self.train.paper}), {len(self.examples)} examples for "
            "validation"
        )

    def comparison(self) -> str:
        """What to compare accuracies with, in a line."""
        task, examples = self.validation, self.examples
        shortcut = sum(task.score(e, task.shortcut(e)) for e in examples) / len(examples)
        return f"chance {task.chance:.3f}, shortcut ({task.shortcut_name}) {shortcut:.3f}"


def open_task(config: RunConfig, name: str) -> TaskData:
    """Open the task of that name as a run's settings want it.

    Raises
    ------
    ConfigError
        There is no such task, the model's vocabulary is too small for it, or it lies in files and
        they are not named.
    DataError
        Files are missing or of another form, or a length is under the task's minimum.
    """
    settings, train = config.data, config.train
    task: Task
    validation: Task
    if name in FILE_TASKS:
        task, validation = (_file_task(settings, name, split) for split in ("train", "test"))
    else:
        task = validation = tasks.get(name)
    check_vocabulary(task, config.model.vocab_size)
    length = train.sequence_length
    seed = held_out(train.seed)
    examples = [validation.make(seed, i, length) for i in range(train.eval_sequences)]
    inputs, targets = collate(examples, length, task.pad)
    return TaskData(
        task,
        validation,
        examples,
        length,
        settings.task_shortest,
        settings.task_workers,
        TaskVocabulary(task),
        inputs,
        targets,
    )


def _file_task(settings: DataConfig, task: str, split: str) -> Task:
    """The training examples of a task of files, or those to evaluate on."""
    name = "train" if split == "train" or FILE_TASKS[task].splits else "validation"
    path = getattr(settings, name)
    if not isinstance(path, str):
        found = "none" if path is None else f"{len(path)} paths"
        raise ConfigError(f"data.{name}: found {found}, expected one path for {task}")
    return open_file_task(task, path, split)
