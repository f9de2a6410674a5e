"""A task as the data of a run: lengths that take turns, and meshes of ranks."""

import numpy as np
import pytest
from ranks import returned, run_threads
from trainer_cases import MODEL, NO_DROPOUT

from longnet import tasks
from longnet.config import RunConfig
from longnet.errors import DataError
from longnet.evaluate.tasks import held_out
from longnet.train import Trainer, read_metrics
from longnet.train.task_data import MixedBatches, open_task


@pytest.mark.parametrize(
    ("length", "shortest", "lengths"),
    [
        (256, 16, [256, 128, 64, 32, 16]),
        (100, 16, [100, 50, 25]),
        (100, 50, [100, 50]),
        (100, 51, [100]),
    ],
)
def test_lengths_take_turns(length, shortest, lengths):
    task = tasks.get("induction_heads")
    batches = MixedBatches(task, 4, length, 3, shortest)
    for step in range(7):
        inputs, targets = next(batches)
        n = lengths[step % len(lengths)]
        made = [task.make(3, index, n) for index in range(4 * step, 4 * step + 4)]
        expected = tasks.collate(made, n, task.pad)
        assert (inputs == expected[0]).all()
        assert (targets == expected[1]).all()
    again = MixedBatches(task, 4, length, 0, shortest)
    again.load_state_dict(batches.state_dict())
    assert (next(again)[0] == next(batches)[0]).all()


def test_lengths_of_another_run_are_refused():
    task = tasks.get("induction_heads")
    plain, mixed = tasks.TaskBatches(task, 2, 64, 0), MixedBatches(task, 2, 64, 0, 16)
    with pytest.raises(DataError, match="no 'shortest'"):
        mixed.load_state_dict(plain.state_dict())


def config(folder, out="run", sequence=1, data=1, **values):
    return RunConfig.from_dict(
        {
            "model": {
                "num_layers": 2,
                "embed_dim": 32,
                "num_heads": 2,
                **MODEL,
                **NO_DROPOUT,
            },
            "data": {"task": "associative_recall", "task_shortest": 8, **values},
            "train": {
                "out_dir": str(folder / out),
                "steps": 8,
                "batch_size": 4,
                "sequence_length": 32,
                "learning_rate": 1e-2,
                "warmup_steps": 1,
                "eval_every": 4,
                "eval_sequences": 6,
                "log_every": 1,
                "sequence_parallel": sequence,
                "data_parallel": data,
                "threads": 1,
            },
        }
    )


def test_the_examples_of_a_run(tmp_path):
    data = open_task(config(tmp_path), "associative_recall")
    task = tasks.get("associative_recall")
    assert len(data.examples) == 6
    for i, example in enumerate(data.examples):
        assert (example.tokens == task.make(held_out(0), i, 32).tokens).all()
    assert data.inputs.shape == data.targets.shape == (6, 32)
    assert data.fingerprint["data.task"] == "associative_recall"
    assert data.text().startswith("task associative_recall (Ba et al.")
    assert data.comparison().startswith("chance 0.016, shortcut (")


@pytest.mark.parametrize(("sequence", "data"), [(2, 1), (1, 2), (2, 2)])
def test_a_mesh_learns_what_one_rank_does(tmp_path, sequence, data):
    """Also where a rank's part of a batch asks for nothing."""
    Trainer(config(tmp_path, "one")).train()
    many = config(tmp_path, "many", sequence, data)
    returned(run_threads(sequence * data, lambda comm: Trainer(many, comm=comm).train()))
    one, found = (read_metrics(tmp_path / out / "metrics.jsonl") for out in ("one", "many"))
    assert [record["tokens"] for record in found] == [record["tokens"] for record in one]
    for key in ("loss", "grad_norm", "validation_loss", "validation_accuracy"):
        expected = [record[key] for record in one if key in record]
        np.testing.assert_allclose(
            [record[key] for record in found if key in record], expected, atol=1e-4
        )
        assert expected
