"""The settings of the data and of the training, and all of a run's settings together."""

import dataclasses
import tomllib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

from longnet.config.fields import Mismatch, convert, fail, unknown_key
from longnet.config.model import ModelConfig
from longnet.config.settings import Settings, field_types

# The paper's models take TrainConfig's defaults; "demo" is minutes on two CPU cores.
_TRAIN_PRESETS: dict[str, dict[str, Any]] = {
    "demo": {
        "steps": 240,
        "batch_size": 1,
        "sequence_length": 4096,
        "learning_rate": 5e-3,
        "warmup_steps": 30,
        "eval_every": 100,
        "eval_sequences": 4,
        "log_every": 5,
        "save_every": 100,
    },
}


@dataclasses.dataclass(frozen=True)
class DataConfig(Settings):
    """Where tokens come from.

    Attributes
    ----------
    train, validation : str or list of str, optional
        A path, a glob, or a list of them. With `train` None, the source code of Python's standard
        library; with `validation` None, a part of the training data that is held out.
    tokenizer : str, optional
        Path of a ``tokenizer.json``; None: bytes are the tokens.
    format : str
        How the files are read; "auto" looks at each.
    task : str, optional
        Train on a task: one that makes itself, or one of files, whose paths `train` and, for some,
        `validation` give. A sequence holds one example.
    task_shortest : int, optional
        Batches of the training take turns in length: ``train.sequence_length``, half of it and so
        on, down to no less than this; None: all of the full length. Short ones are learned first.
    task_workers : int
        Processes that make a task's examples ahead: worth it for images. 0: none of their own.

    Raises
    ------
    ConfigError
        A value has the wrong type, or is empty.
    """

    section: ClassVar[str] = "data"

    train: str | tuple[str, ...] | None = None
    validation: str | tuple[str, ...] | None = None
    tokenizer: str | None = None
    format: str = "auto"
    task: str | None = None
    task_shortest: int | None = None
    task_workers: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train", "validation"):
            value = getattr(self, name)
            filled = value is None or (len(value) > 0 and all(value))
            self.check(name, filled, "a path, a glob, or a list of them")
        self.check("tokenizer", self.tokenizer != "", "the path of a tokenizer.json")
        self.check("format", self.format != "", "the name of a format")
        self.check("task", self.task != "", "the name of a task")
        shortest = self.task_shortest
        self.check("task_shortest", shortest is None or shortest >= 1, "at least 1, or none")
        of_task = shortest is None or self.task is not None
        self.check("task_shortest", of_task, "none without data.task")
        self.check("task_workers", self.task_workers >= 0, "at least 0")


@dataclasses.dataclass(frozen=True)
class TrainConfig(Settings):
    """How a model is trained; the defaults are the paper's.

    Attributes
    ----------
    out_dir : str
        Folder of checkpoints, metrics and the loss curve.
    steps : int
        Updates of the weights, each from ``batch_size * accumulate`` sequences.
    batch_size, accumulate : int
        Sequences of one forward and backward pass of all ranks, and such passes to one update.
    sequence_length : int
        N, tokens in a sequence.
    learning_rate, warmup_steps, schedule, schedule_power, end_learning_rate, decay_fraction
        As `longnet.schedules.make_schedule` takes them.
    betas, eps, weight_decay
        AdamW's.
    clip : float
        Largest norm of all gradients together.
    seed : int
        Of the weights, of the order of the data and of dropout.
    dtype : {"float32", "bfloat16", "float16"}
        Of activations.
    stochastic_rounding : bool
        Where `dtype` is not float32, round the weights to it at random, right in the mean.
    device : str
        "cpu" or "cuda"; of several ranks, each takes the GPU of its number on its host.
    sequence_parallel, data_parallel : int
        Ranks that share each sequence, and such groups of ranks, which share the sequences of a
        batch. A launcher starts as many ranks as their product.
    timeout : float
        Seconds that a rank waits for the others, which may be writing a checkpoint.
    eval_every, log_every, save_every : int
        In steps.
    eval_sequences : int
        Sequences of the validation data that one evaluation reads.
    keep : int
        Checkpoints that stay on disk.
    recompute : {"none", "block", "attention-kept"}
        What the backward pass computes again instead of finding it stored: nothing, each block, or
        each block but its attention.
    loss_chunk : int, optional
        Tokens whose logits exist at one time; None: 1024 on the CPU, 8192 on a GPU.
    deterministic : bool
        Gradients of the same bits every time on a GPU as well, at some cost.
    detect_anomaly : bool
        Look at the result of every op, and name the first that is not finite; slow.
    threads : int, optional
        CPU threads, of our ops and of NumPy's BLAS each; None: as many as the machine gives.

    Raises
    ------
    ConfigError
        A value has the wrong type, lies outside its range, or contradicts another.
    """

    section: ClassVar[str] = "train"

    out_dir: str = "runs/longnet"
    steps: int = 300_000
    batch_size: int = 16
    accumulate: int = 1
    sequence_length: int = 32768
    learning_rate: float = 6e-4
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-8
    weight_decay: float = 0.01
    clip: float = 2.0
    warmup_steps: int = 750
    schedule: str = "polynomial"
    schedule_power: float = 1.0
    end_learning_rate: float = 0.0
    decay_fraction: float = 0.2
    seed: int = 0
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    stochastic_rounding: bool = False
    device: str = "cpu"
    sequence_parallel: int = 1
    data_parallel: int = 1
    timeout: float = 600.0
    eval_every: int = 1000
    eval_sequences: int = 16
    log_every: int = 10
    save_every: int = 1000
    keep: int = 3
    recompute: Literal["none", "block", "attention-kept"] = "none"
    loss_chunk: int | None = None
    deterministic: bool = False
    detect_anomaly: bool = False
    threads: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("out_dir", "schedule", "device"):
            self.check(name, getattr(self, name) != "", "a string that is not empty")
        counts = ("steps", "batch_size", "accumulate", "sequence_length", "keep")
        counts += ("sequence_parallel", "data_parallel")
        for name in (*counts, "eval_every", "eval_sequences", "log_every", "save_every"):
            self.check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("learning_rate", "eps", "clip", "schedule_power", "timeout"):
            self.check(name, getattr(self, name) > 0, "a value above 0")
        for name in ("weight_decay", "seed"):
            self.check(name, getattr(self, name) >= 0, "at least 0")
        self.check("betas", all(0 <= beta < 1 for beta in self.betas), "two values in [0, 1)")
        multiple = f"a multiple of train.data_parallel = {self.data_parallel}"
        self.check("batch_size", self.batch_size % self.data_parallel == 0, multiple)
        most = f"at most train.sequence_length = {self.sequence_length}"
        self.check("sequence_parallel", self.sequence_parallel <= self.sequence_length, most)
        chunk = self.loss_chunk
        self.check("loss_chunk", chunk is None or chunk >= 1, "at least 1, or none")
        self.check("threads", self.threads is None or self.threads >= 1, "at least 1, or none")
        self.check("decay_fraction", 0 < self.decay_fraction <= 1, "a fraction in (0, 1]")
        within = f"0 to train.steps = {self.steps}"
        self.check("warmup_steps", 0 <= self.warmup_steps <= self.steps, within)
        within = f"0 to train.learning_rate = {self.learning_rate}"
        self.check("end_learning_rate", 0 <= self.end_learning_rate <= self.learning_rate, within)


@dataclasses.dataclass(frozen=True)
class RunConfig(Settings):
    """All settings of a run: the sections ``[model]``, ``[data]`` and ``[train]`` of its file."""

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)

    @classmethod
    def preset(cls, name: str) -> "RunConfig":
        """Return a run of `ModelConfig.preset(name)` that is stored under ``runs/<name>``."""
        model = ModelConfig.preset(name)
        train = {"out_dir": f"runs/{name}", **_TRAIN_PRESETS.get(name, {})}
        return cls(model=model, train=TrainConfig.from_dict(train))

    def override(
        self, assignments: Iterable[str], values: Mapping[str, Mapping[str, Any]] | None = None
    ) -> "RunConfig":
        """Return a copy with settings replaced, as the command line spells them.

        Parameters
        ----------
        assignments : iterable of str
            ``section.key=value``; of a key given twice the last holds. The value is TOML; what is
            not TOML is a string, and a bare ``none`` is None where the setting may be None.
        values : mapping, optional
            Settings by section and key that hold over those.

        Raises
        ------
        ConfigError
            An assignment has another form, or is one that `merge` refuses.
        """
        if isinstance(assignments, str):
            fail("override", assignments, "a list of section.key=value")
        changes: dict[str, dict[str, Any]] = {}
        for assignment in assignments:
            name, equals, text = assignment.partition("=")
            section, dot, key = name.strip().partition(".")
            if not equals:
                fail("override", assignment, "section.key=value")
            if not dot:
                unknown_key(section, section, self.keys())
            kind = field_types(RunConfig).get(section)
            if kind is None:
                unknown_key(section, section, field_types(RunConfig))
            if key not in field_types(kind):
                unknown_key(kind.where(key), key, kind.keys())
            changes.setdefault(section, {})[key] = _parse_value(
                text.strip(), field_types(kind)[key]
            )
        for section, settings in (values or {}).items():
            changes.setdefault(section, {}).update(settings)
        return self.merge(changes)


def _parse_value(text: str, kind: Any) -> Any:
    """Read `text` as TOML if that gives what the annotation `kind` wants, else as it stands."""
    if text == "none" and _takes(None, kind):
        return None
    try:
        table = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        return text
    # A text of several lines could hold more keys than one: then it is no value.
    value = table["value"] if list(table) == ["value"] else text
    return text if _takes(text, kind) and not _takes(value, kind) else value


def _takes(value: Any, kind: Any) -> bool:
    try:
        convert(value, kind)
    except Mismatch:
        return False
    return True
