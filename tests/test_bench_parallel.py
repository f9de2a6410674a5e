"""The measurements of sequences over ranks and in pieces run, count what they say, and save it."""

import argparse
import json
from functools import partial

import numpy as np
import pytest
from attention_cases import relative_error
from parallel_cases import results
from ranks import run_threads
from reference import dilated_attention as reference

import longnet
from longnet import blas
from longnet.bench import billion, billion_rows, growing, parallel
from longnet.bench.billion_rows import NAMES, Errors, Rows, exact_row, rounded, sampled_rows
from longnet.bench.parallel_switch import Switch

BLOCK = 128  # rows from one seed


@pytest.fixture(autouse=True)
def small(monkeypatch, restore_threads):
    """Few keys for each query, and products that leave the processors to the other ranks."""
    monkeypatch.setattr(growing, "WINDOW", 32)
    monkeypatch.setattr(billion_rows, "BLOCK", BLOCK)
    blas.set_num_threads(1)


def parse(module, *arguments):
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    return parser.parse_args(arguments)


def test_growing_levels():
    assert growing.growing_levels(1000) == ([32, 128, 512, 1000], [1, 4, 16, 31])
    assert growing.growing_levels(20) == ([20], [1])


def test_rows_are_the_same_whoever_asks():
    rows = Rows(2, 16, "cpu", seed=3)
    whole = rows.make("k", 0, 2 * BLOCK + 9).numpy()
    assert abs(whole.astype(float).mean()) < 0.05
    assert abs(whole.astype(float).std() - 1) < 0.05
    for begin, end in ((0, 5), (7, BLOCK + 3), (BLOCK, 2 * BLOCK), (2 * BLOCK - 1, 2 * BLOCK + 9)):
        found = Rows(2, 16, "cpu", seed=3).part("k", 0, 2 * BLOCK + 9)[:, begin:end]
        assert found.numpy().tobytes() == whole[:, begin:end].tobytes()
    assert rows.part("k", 100, 200)[:, 3:4].numpy().tobytes() == whole[:, 103:104].tobytes()
    single = rows.of_head("k", 1, range(11, 2 * BLOCK + 9, BLOCK // 2 + 1))
    np.testing.assert_array_equal(single, whole[0, 11 :: BLOCK // 2 + 1, 1].astype(float))
    for other in (rows.make("v", 0, 9), Rows(2, 16, "cpu", seed=4).make("k", 0, 9)):
        assert other.numpy().tobytes() != whole[:, :9].tobytes()


def test_sampled_rows_are_computed_from_the_definition():
    n, rows = 300, Rows(3, 16, "cpu")
    lengths, rates = growing.growing_levels(n)
    attention = longnet.DilatedAttention(lengths, rates)
    pattern = reference.Pattern(tuple(lengths), tuple(rates))
    q, k, v = (rows.make(name, 0, n).numpy().astype(np.float32) for name in NAMES)
    expected = reference.forward(pattern, q, k, v)[0]
    samples = sampled_rows(n, max(rates), 3, 20)
    assert samples[0][0] == n - 1
    assert {row * 4 // n for row, _ in samples} == {0, 1, 2, 3}
    assert sum(row % max(rates) == head for row, head in samples) >= 8
    for row, head in samples:
        found = exact_row(rows, attention, row, head)
        assert relative_error(found, expected[0, row, head]) <= 1e-12


def test_errors():
    exact = np.array([1.0 + 2.0**-9, -0.25, 0.5])
    first, second = Errors.of(np.array([1.0, -0.25, 0.75]), exact), Errors.of(2 * exact, exact)
    assert first.worst == pytest.approx(0.25 / exact[0])
    assert first.mean == pytest.approx(np.sqrt((0.25**2 + 2.0**-18) / np.sum(exact**2)))
    assert second == Errors(1.0, 1.0)
    assert Errors.together([first, second]).worst == 1.0
    assert Errors.together([second, Errors(0.1, 7.0)]) == Errors(1.0, 5.0)
    assert Errors.of(rounded(exact), exact).worst == pytest.approx(2.0**-9 / exact[0])


@pytest.mark.parametrize("ranks", [1, 3])
def test_billion(ranks):
    """However many ranks, and pieces that divide nothing."""
    rows = Rows(billion.HEADS, billion.HEAD_DIM, "cpu")
    samples = sampled_rows(700, 22, billion.HEADS, 12)
    found = results(run_threads(ranks, lambda c: billion.long(c, rows, 700, 90, samples)))[0]
    assert found.ranks == ranks
    assert found.tokens == 700
    assert found.ns_per_token > 0
    assert (found.received_mb > 0) == (ranks > 1)
    assert 0 < found.errors.mean <= 2 * found.rounding.mean


def test_billion_saves_what_it_prints(tmp_path, capsys):
    options = ["--device", "cpu", "--tokens", "512", "--piece", "128", "--repeats", "2"]
    assert billion.run(parse(billion, *options, "--rows", "3", "--save", str(tmp_path))) == 0
    text = (tmp_path / "billion_cpu.txt").read_text()
    assert capsys.readouterr().out == text
    header, *rows = map(json.loads, (tmp_path / "billion_cpu.jsonl").open())
    assert header["ranks"] == 1
    assert [row["name"] for row in rows] == ["rows alone", "one call", "pieces of 128"]
    assert "time a token of 512 over 512: " in text
    assert "sampled rows, 1 ranks, against float64: " in text


@pytest.mark.parametrize(
    ("kind", "scaling"), [("attention", "weak"), ("attention", "strong"), ("training", "weak")]
)
def test_parallel(kind, scaling):
    """Bytes are those of the formula, and every number of ranks has its row."""
    options = [f"--{scaling}", "96", "--only", kind, "--preset", "demo", "--repeats", "1"]
    options = parse(parallel, *options, "--device", "cpu")
    rows, _, fewer = results(run_threads(3, lambda w: list(parallel.measure_all(w, options))))
    sizes = (1, 2, 3)
    tokens = [96 * size if scaling == "weak" else 96 for size in sizes]
    assert [(row.ranks, row.tokens) for row in rows] == list(zip(sizes, tokens, strict=True))
    assert [row.ranks for row in fewer] == [3]
    for row in rows:
        assert row.tokens_per_second == pytest.approx(row.tokens / row.ranks / row.ms * 1e3)
        assert row.received == pytest.approx(row.formula, rel=0.05)
        assert (row.formula > 0) == (row.ranks > 1)
        ratio = row.tokens_per_second / rows[0].tokens_per_second
        assert row.efficiency == pytest.approx(ratio)
        assert (row.exposed is None) == (row.ranks == 1)
    assert parallel.table(rows).count(kind) == 3


def test_parallel_on_some_ranks(capsys):
    options = ["--weak", "64", "--only", "attention", "--repeats", "1", "--ranks"]
    options = partial(parse, parallel, *options)
    (row,), *_ = results(run_threads(2, lambda w: list(parallel.measure_all(w, options("2")))))
    assert (row.ranks, row.tokens, row.efficiency) == (2, 128, None)
    rows, _ = results(run_threads(2, lambda w: list(parallel.measure_all(w, options("2", "1")))))
    assert [row.ranks for row in rows] == [1, 2]
    assert rows[1].efficiency == pytest.approx(
        rows[1].tokens_per_second / rows[0].tokens_per_second
    )
    with pytest.raises(SystemExit):
        parallel.run(options("1", "2", "--device", "cpu"))
    assert "--ranks: found [1, 2], expected 1 to 1" in capsys.readouterr().err


def test_parallel_saves_what_it_prints(tmp_path, capsys):
    options = ["--weak", "64", "--only", "attention", "--repeats", "1", "--save", str(tmp_path)]
    assert parallel.run(parse(parallel, *options, "--device", "cpu")) == 0
    assert capsys.readouterr().out == (tmp_path / "parallel_cpu.txt").read_text()
    _, row = map(json.loads, (tmp_path / "parallel_cpu.jsonl").open())
    assert (row["kind"], row["ranks"], row["tokens"]) == ("attention", 1, 64)
    with pytest.raises(SystemExit):
        parallel.run(parse(parallel))


def test_memory_that_is_short_for_one_rank_is_a_row():
    def make(comm, tokens):
        raise longnet.OutOfMemoryError("2 bytes")

    world = longnet.Communicator.threads(1)[0]
    (row,) = parallel.measure(world, "training", "strong", 9, make, 1, [1])
    assert row.error == "2 bytes"
    assert "2 bytes" in parallel.table([row])


def test_a_switch_that_is_off_moves_nothing():
    def call(comm):
        switch = Switch(comm)
        mine, theirs = (np.full(4, float(comm.rank + 1), np.float32) for _ in range(2))
        peer = 1 - comm.rank
        switch.moving = False
        switch.exchange([(peer, mine)], [(peer, theirs)], blocking=False).wait()
        switch.all_reduce(mine)
        switch.barrier()
        quiet = theirs.copy(), mine.copy(), switch.gather_objects(comm.rank), comm.bytes_received
        switch.moving = True
        switch.exchange([(peer, mine)], [(peer, theirs)])
        switch.all_reduce(mine)
        return quiet, (theirs, mine, switch.gather_objects(comm.rank), comm.bytes_received)

    for rank, (quiet, moved) in enumerate(results(run_threads(2, call))):
        np.testing.assert_array_equal(quiet[0], 0)
        np.testing.assert_array_equal(quiet[1], rank + 1)
        assert quiet[2:] == ([rank, rank], 0)
        np.testing.assert_array_equal(moved[0], 2 - rank)
        np.testing.assert_array_equal(moved[1], 3)
        assert moved[2] == [0, 1]
        assert moved[3] == 32
