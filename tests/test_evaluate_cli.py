"""``longnet evaluate`` and ``longnet train --task``: what a user types, and what comes out."""

import json

import numpy as np
import pytest
from tiny_run import MODEL, TRAIN, tiny_config

from longnet.cli import main
from longnet.data import ByteTokenizer
from longnet.evaluate.text import sum_of_losses
from longnet.train import Trainer, read_metrics

IMAGE = (4, 4)


def run(capsys, *arguments):
    """Exit code, standard output and standard error."""
    try:
        code = main(arguments)
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run's folder."""
    config = tiny_config(tmp_path_factory.mktemp("trained"), steps=2)
    Trainer(config).train()
    return config.train.out_dir


def evaluate(capsys, trained, *arguments):
    return run(capsys, "evaluate", "--checkpoint", trained, *arguments)


def records(out):
    return [json.loads(line) for line in out.splitlines()]


def test_a_task_over_lengths_and_depths(capsys, trained, tmp_path):
    out = tmp_path / "results" / "needle"
    options = ["--task", "needle", "--lengths", "512,768", "--depths", "0,0.5,1", "--examples", "2"]
    code, printed, err = evaluate(capsys, trained, *options, "--json", "--out", str(out))
    assert (code, err) == (0, "")
    cells = records(printed)
    assert [(cell["length"], cell["depth"]) for cell in cells] == [
        (length, depth) for length in (512, 768) for depth in (0, 0.5, 1)
    ]
    for cell in cells:
        assert (cell["task"], cell["step"], cell["seed"], cell["examples"]) == ("needle", 2, 0, 2)
        assert 0 <= cell["score"] <= 1
        assert {"standard_error", "chance", "shortcut", "shortcut_name", "loss"} <= set(cell)
    assert (out / "results.jsonl").read_text() == printed
    pictures = {path.name for path in out.glob("*.png")}
    assert pictures == {"depth_length.png", "position.png", "length.png"}
    assert all((out / name).stat().st_size > 5000 for name in pictures)

    code, printed, err = evaluate(capsys, trained, *options, "--out", str(out))
    assert (code, printed) == (2, "")
    assert "results.jsonl: found results, expected none: choose another folder" in err


def test_a_table_for_people(capsys, trained, tmp_path):
    code, printed, err = evaluate(
        capsys, trained, "--task", "pathfinder32", "--lengths", "1024", "--examples", "3",
        "--out", str(tmp_path),
    )  # fmt: skip
    assert (code, err) == (0, "")
    paper, shortcut, header, row, *pictures = printed.splitlines()
    assert paper.startswith("pathfinder32 (Linsley")
    assert shortcut.startswith("shortcut: ")
    expected = ["length", "depth", "examples", "score", "standard_error", "chance", "shortcut"]
    assert header.split() == [*expected, "loss", "tokens"]
    assert row.split()[:3] == ["1,024", "-", "3"]
    assert pictures == [str(tmp_path / "images.png")]
    assert (tmp_path / "images.png").stat().st_size > 5000


def test_the_same_seed_gives_the_same_bytes(capsys, trained):
    options = ["--task", "induction_heads", "--examples", "3", "--json", "--lengths", "64"]
    first, again, other = (
        evaluate(capsys, trained, *options, "--seed", seed)[1] for seed in ("1", "1", "2")
    )
    assert first == again
    assert records(first)[0]["loss"] != records(other)[0]["loss"]


def test_text(capsys, trained, tmp_path):
    path = tmp_path / "some.txt"
    path.write_bytes(bytes(range(97, 123)) * 20)
    options = ["--data", str(path), "--lengths", "16,48,4096"]
    code, printed, err = evaluate(capsys, trained, *options, "--json")
    assert (code, err) == (0, "")
    found = records(printed)
    assert [record["length"] for record in found] == [16, 48, 4096]
    assert {record["tokens"] for record in found} == {519}
    from longnet.cli.load import load_trained

    model = load_trained(trained).model
    nats = sum_of_losses(model, ByteTokenizer().encode(path.read_bytes())[None], 48, "cpu")
    assert found[1]["bits_per_byte"] == pytest.approx(nats / np.log(2) / 519)
    out = tmp_path / "out"
    code, printed, _ = evaluate(capsys, trained, *options, "--out", str(out))
    assert printed.splitlines()[0].split()[:2] == ["length", "tokens"]
    assert printed.splitlines()[-1] == str(out / "context.png")
    assert (out / "context.png").stat().st_size > 5000
    code, printed, _ = evaluate(capsys, trained, "--data", "stdlib", "--examples", "1", "--json")
    assert (code, records(printed)[0]["tokens"]) == (0, TRAIN["sequence_length"])


def test_benchmarks_of_text(capsys, trained, tmp_path):
    lambada = tmp_path / "lambada.jsonl"
    lambada.write_text('{"text": "he said yes"}\n{"text": "she said no"}\n')
    code, printed, _ = evaluate(capsys, trained, "--task", "lambada", "--data", str(lambada))
    assert code == 0
    assert printed.split()[:4] == ["examples", "accuracy", "standard_error", "perplexity"]

    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "1.txt").write_text("a short book")
    (tmp_path / "metadata.csv").write_text("1,A book,1900,http://x\n")
    code, printed, _ = evaluate(
        capsys, trained, "--task", "pg19", "--data", str(tmp_path), "--json"
    )
    assert [record["book"] for record in records(printed)] == ["1", "all"]

    item = {"input": "Who?", "context": "Ann.", "answers": ["Ann"], "length": 2, "dataset": "lcc"}
    longbench = tmp_path / "lcc.jsonl"
    longbench.write_text(json.dumps(item))
    code, printed, _ = evaluate(
        capsys, trained, "--task", "longbench", "--data", str(longbench), "--new-tokens", "2",
        "--json",
    )  # fmt: skip
    assert records(printed)[0]["dataset"] == "lcc"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "evaluate: found neither --task nor --data, expected at least one"),
        (["--task", "nedle"], "task 'nedle': unknown, expected needle"),
        (["--task", "needle", "--lengths", "5"], "task needle: length 5, expected at least"),
        (["--task", "needle", "--lengths", "5,x"], "--lengths: found '5,x', expected whole number"),
        (["--task", "needle", "--examples", "0"], "--examples: found 0, expected at least 1"),
        (["--task", "listops", "--lengths", "64", "--seed", "-1"], "seed: found -1, expected 0"),
        (["--task", "mnist"], "--data: found none, expected one path for task mnist"),
        (["--task", "mnist", "--data", "/no/such"], "No such file or directory, expected an IDX"),
        (["--task", "lambada", "--data", "a", "b"], "--data: found 2, expected one path"),
        (["--data", "x", "--depths", "0.5"], "--depths: found some, expected none but with a task"),
        (["--data", "/no/such"], "/no/such': no such file, expected a file, a folder or a glob"),
        (["--task", "listops", "--device", "gpu"], "gpu"),
    ],
)
def test_what_is_wrong_is_one_line(capsys, trained, options, message):
    code, _, err = evaluate(capsys, trained, *options)
    assert code in (1, 2)
    assert err.startswith("longnet: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_checkpoint_that_is_none(capsys, tmp_path):
    code, _, err = evaluate(capsys, str(tmp_path), "--task", "listops")
    assert code == 1
    assert "found no checkpoint" in err


def settings(folder, **values):
    """A configuration file."""
    path = folder / "run.json"
    train = {**TRAIN, "out_dir": str(folder / "run"), "sequence_length": 64, "eval_sequences": 5}
    model = {**MODEL, "segment_lengths": [64], "dilation_rates": [1]}
    path.write_text(json.dumps({"model": model, "data": values, "train": train}))
    return str(path)


def test_training_on_a_task(capsys, tmp_path):
    config = settings(tmp_path, task="induction_heads", task_shortest=16)
    code, out, _ = run(capsys, "train", "--config", config)
    assert code == 0
    assert "data   task induction_heads (Fu et al." in out
    assert "on 5 held-out examples of 64 tokens\n(chance 0.062, shortcut (" in out
    assert f"--checkpoint {tmp_path / 'run'} --task induction_heads --lengths 64,128,256" in out
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert 0 <= last["validation_accuracy"] <= 1
    assert last["validation_loss"] > 0
    assert last["tokens"] == 2 * (64 + 32 + 16 + 64 + 32 + 16)

    code, _, err = run(capsys, "train", "--resume", str(tmp_path / "run"), "--task", "listops",
                       "--set", "data.task_shortest=none")  # fmt: skip
    assert code == 2
    assert "data.tokenizer: found task listops, expected task induction_heads" in err


def test_a_resumed_run_on_a_task_gives_the_same_bits(capsys, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, steps in ((whole, [6]), (parts, [4, 6])):
        folder.mkdir()
        config = settings(folder, task="associative_recall", task_shortest=16)
        for number in steps:
            resume = ["--resume"] if number != steps[0] else ["--config", config]
            arguments = [*resume, *([str(folder / "run")] if number != steps[0] else [])]
            extra = ["--set", f"train.steps={number}", "--set", "train.schedule=constant"]
            vocabulary = ["--set", "model.vocab_size=256"]
            assert run(capsys, "train", *arguments, *extra, *vocabulary)[0] == 0
    first, second = (
        (folder / "run" / "step-00000006" / "model.safetensors").read_bytes()
        for folder in (whole, parts)
    )
    assert first == second


def test_training_on_images_of_files(capsys, tmp_path, rng):
    for prefix, count in (("train", 9), ("t10k", 5)):
        for kind, array in (
            ("images-idx3", rng.integers(0, 256, (count, *IMAGE))),
            ("labels-idx1", rng.integers(0, 10, count)),
        ):
            header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
            path = tmp_path / f"{prefix}-{kind}-ubyte"
            path.write_bytes(header + array.astype(np.uint8).tobytes())
    config = settings(tmp_path, train=str(tmp_path), task="mnist", task_workers=1)
    code, out, _ = run(capsys, "train", "--config", config, "--set", "train.sequence_length=16")
    assert code == 0
    assert "on 5 held-out examples of 16 tokens" in out
    code, out, _ = run(
        capsys, "evaluate", "--checkpoint", str(tmp_path / "run"), "--task", "mnist",
        "--data", str(tmp_path), "--json",
    )  # fmt: skip
    assert records(out)[0]["examples"] == 5  # all of them


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"task": "inducton_heads"}, "task 'inducton_heads': unknown, expected induction_heads"),
        ({"task": ""}, "data.task: found '', expected the name of a task"),
        ({"task_shortest": 5}, "data.task_shortest: found 5, expected none without data.task"),
        ({"task": "listops", "task_shortest": 0}, "data.task_shortest: found 0, expected at least"),
        ({"task": "listops", "task_shortest": 5}, "task listops: length 5, expected at least 32"),
        ({"task": "mnist"}, "data.train: found none, expected one path for mnist"),
        ({"task": "lra_listops", "train": "/no/such"}, "/no/such: No such file or directory"),
        ({"task": "needle"}, "task needle: length 64, expected at least"),
    ],
)
def test_settings_of_a_task_that_are_wrong(capsys, tmp_path, values, message):
    code, _, err = run(capsys, "train", "--config", settings(tmp_path, **values))
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_a_task_of_separate_files_needs_both(capsys, tmp_path):
    path = tmp_path / "basic_train.tsv"
    path.write_text("Source\tTarget\n[MAX 1 2 ]\t2\n")
    config = settings(tmp_path, task="lra_listops", train=str(path))
    code, _, err = run(capsys, "train", "--config", config)
    assert code == 2
    assert "data.validation: found none, expected one path for lra_listops" in err
