"""What a run would take, beside what it takes."""

import pytest
from tiny_run import tiny_config, write_text

import longnet
from longnet.cli import main
from longnet.errors import OutOfMemoryError
from longnet.train import MemoryEstimate, Trainer, estimate_memory
from longnet.train import memory as memory_module
from longnet.train.memory import explain_shortage, tokens_per_rank, what_would_fit


@pytest.mark.parametrize("recompute", ["none", "block"])
def test_the_estimate_is_what_a_step_takes(tmp_path, recompute):
    write_text(tmp_path, 60_000)
    options = {"batch_size": 4, "sequence_length": 512, "recompute": recompute, "steps": 1}
    config = tiny_config(tmp_path, **options, eval_sequences=1)
    estimate = estimate_memory(config)
    before = longnet.memory_stats()["bytes"]
    longnet.reset_peak_memory()
    trainer = Trainer(config)
    trainer.train()
    taken = longnet.memory_stats()["peak_bytes"] - before
    assert estimate.peak_bytes(4 * 512) == pytest.approx(taken, rel=0.05)
    assert estimate.state_bytes == 16 * trainer.model.num_parameters()


def test_the_estimate_of_one_rank_of_a_mesh(tmp_path):
    """Its tokens, and its part of the moments."""
    config = tiny_config(tmp_path, batch_size=4, sequence_length=256, eval_sequences=1)
    mesh = config.merge({"train": {"sequence_parallel": 3, "data_parallel": 2}})
    whole, part = estimate_memory(config), estimate_memory(mesh)
    assert part.state_bytes == pytest.approx(whole.state_bytes * (8 + 8 / 6) / 16, rel=1e-3)
    assert tokens_per_rank(config.train) == 4 * 256
    assert tokens_per_rank(mesh.train) == 2 * 86
    assert part.peak_bytes(172) < whole.peak_bytes(172) < whole.peak_bytes(1024)


def test_tokens_that_fit():
    estimate = MemoryEstimate(state_bytes=50, fixed_bytes=100.0, bytes_per_token=10.0)
    assert estimate.peak_bytes(5) == 150
    assert estimate.tokens_that_fit(149) == 4
    assert estimate.tokens_that_fit(20) == 0


def test_a_dry_run_trains_nothing(tmp_path, capsys):
    config = tiny_config(tmp_path)
    config.save(tmp_path / "run.toml")
    arguments = ["train", "--config", str(tmp_path / "run.toml"), "--dry-run"]
    assert main(arguments) == 0
    out = capsys.readouterr().out
    for text in ("parameters", "peak", "48 tokens", "GFLOP a token", "recompute: none"):
        assert text in out
    assert "ranks" not in out
    assert main([*arguments, "--sequence-parallel", "2", "--data-parallel", "2"]) == 0
    out = capsys.readouterr().out
    for text in ("4: sequence parallel 2, data parallel 2; memory is that of one", "for 12 tokens"):
        assert text in out
    assert not (tmp_path / "run").exists()


def test_a_dry_run_of_a_resumed_run(tmp_path, capsys):
    config = tiny_config(tmp_path, batch_size=1, sequence_length=8)
    Trainer(config).train()
    arguments = ["train", "--out-dir", config.train.out_dir, "--resume", "--dry-run"]
    assert main(arguments) == 0
    assert "8 tokens" in capsys.readouterr().out


def test_a_shortage_is_explained(tmp_path, monkeypatch):
    trainer = Trainer(tiny_config(tmp_path))
    assert what_would_fit(trainer.config) == ""
    monkeypatch.setattr(memory_module, "what_would_fit", lambda config: "7 would fit")

    def short():
        raise OutOfMemoryError("no room")

    with pytest.raises(OutOfMemoryError, match="step 1: no room; 7 would fit"):
        explain_shortage(trainer, short)
