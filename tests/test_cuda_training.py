"""Models, the trainer and its checkpoints on a GPU, beside the CPU."""

import math
import shutil

import numpy as np
import pytest
from tiny_run import same_arrays, tiny_config, write_text

import longnet
from longnet import random
from longnet.autograd import no_grad
from longnet.checkpoint import load_latest
from longnet.config import Config
from longnet.errors import DivergenceError
from longnet.generate import generate
from longnet.model import LongNet
from longnet.train import Trainer, estimate_memory, read_checkpoint, read_metrics

pytestmark = pytest.mark.gpu

SMALL = {
    "vocab_size": 300,
    "num_layers": 2,
    "embed_dim": 64,
    "num_heads": 4,
    "segment_lengths": (32, 64, 128),
    "dilation_rates": (1, 2, 4),
}
VARIANTS = [
    {},
    {"norm_placement": "pre", "norm": "rms_norm", "activation": "swiglu", "position": "rope"},
    {"num_kv_heads": 2, "tie_embeddings": True, "bias": False, "mixer": "dense"},
    {"dropout": 0.2, "attention_dropout": 0.1, "offsets": "grouped", "position": "none"},
]


def gradients(config, device, tokens, targets, dtype="float32", **options):
    """The loss and every parameter's gradient."""
    model = LongNet(config, seed=3, dtype=dtype, device=device)
    with random.use(random.RandomState(5)):
        loss = model.loss(tokens, targets, chunk=100, **options)
    loss.backward()
    return loss.item(), {n: p.grad.to("cpu").numpy() for n, p in model.named_parameters()}


@pytest.fixture
def batch(rng):
    ids = rng.integers(0, 300, (2, 201), dtype=np.int32)
    return np.ascontiguousarray(ids[:, :-1]), np.ascontiguousarray(ids[:, 1:])


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_are_the_cpu_s(batch, variant):
    config = Config(**{**SMALL, **variant})
    loss, expected = gradients(config, "cpu", *batch)
    found_loss, found = gradients(config, "cuda", *batch)
    assert found_loss == pytest.approx(loss, rel=1e-5)
    # The bias of keys moves nothing without positions: there terms of the others' size cancel.
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    for name, gradient in expected.items():
        limit = 2e-4 * np.abs(gradient).max() + 1e-6 * largest
        assert np.abs(found[name] - gradient).max() <= limit, name


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near(batch, dtype):
    config = Config(**SMALL)
    loss, expected = gradients(config, "cpu", *batch)
    found_loss, found = gradients(config, "cuda", *batch, dtype=dtype)
    assert found_loss == pytest.approx(loss, rel=1e-2)
    for name, gradient in expected.items():
        error = np.linalg.norm(found[name] - gradient)
        assert error <= 0.1 * np.linalg.norm(gradient) + 1e-6, name


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_recomputing_gives_the_same_bits(batch, dtype):
    config = Config(**SMALL, dropout=0.1, attention_dropout=0.1)
    options = {"dtype": dtype, "deterministic": True}
    _, expected = gradients(config, "cuda", *batch, **options)
    for recompute in ("block", "attention-kept"):
        _, found = gradients(config, "cuda", *batch, recompute=recompute, **options)
        for name, gradient in expected.items():
            np.testing.assert_array_equal(found[name], gradient, err_msg=name)


def losses(config):
    Trainer(config).train()
    return np.array([r["loss"] for r in read_metrics(f"{config.train.out_dir}/metrics.jsonl")])


def test_100_steps_are_the_cpu_s(tmp_path):
    options = {"steps": 100, "eval_every": 100, "save_every": 100, "learning_rate": 2e-3}
    cpu = losses(tiny_config(tmp_path, "cpu", **options))
    gpu = losses(tiny_config(tmp_path, "gpu", device="cuda", **options))
    assert len(cpu) == 100
    assert np.abs(gpu - cpu).max() < 1e-4
    half = losses(tiny_config(tmp_path, "half", device="cuda", dtype="bfloat16", **options))
    assert np.abs(half / cpu - 1).max() < 1e-2


def test_resuming_gives_the_same_bits(tmp_path):
    options = {"device": "cuda", "dtype": "bfloat16", "deterministic": True}
    options["stochastic_rounding"] = True
    Trainer(tiny_config(tmp_path, "whole", **options)).train()
    shutil.copytree(tmp_path / "whole/step-00000004", tmp_path / "parts/step-00000004")
    parts = tiny_config(tmp_path, "parts", **options)
    Trainer(parts, resume=read_checkpoint(tmp_path / "parts")).train()
    assert same_arrays(load_latest(tmp_path / "parts"), load_latest(tmp_path / "whole"))


@pytest.mark.parametrize(("first", "second"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_checkpoint_of_the_other_device(tmp_path, first, second):
    Trainer(tiny_config(tmp_path, device=first, steps=4)).train()
    checkpoint = read_checkpoint(tmp_path / "run")
    trainer = Trainer(tiny_config(tmp_path, device=second), resume=checkpoint)
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, checkpoint.arrays["model"][name])
    assert trainer.train().evaluation is not None


def test_records_name_speed_and_memory(tmp_path):
    Trainer(tiny_config(tmp_path, device="cuda", log_every=2)).train()
    records = read_metrics(tmp_path / "run/metrics.jsonl")
    assert [r["step"] for r in records] == [2, 3, 4, 6]  # 3: an evaluation
    for record in records:
        assert math.isfinite(record["loss"])
        assert record["peak_memory_bytes"] > 0
        assert record["tokens_per_second"] > 0


def test_generated_text_is_the_cpu_s():
    config = Config(**SMALL)
    tokens = [
        generate(LongNet(config, seed=1, device=device), [1, 2, 3], 20, temperature=0)
        for device in ("cpu", "cuda")
    ]
    np.testing.assert_array_equal(*tokens)


def test_a_loss_that_is_not_finite_keeps_the_checkpoint(tmp_path):
    config = tiny_config(tmp_path, device="cuda", dtype="bfloat16", eval_every=99, steps=5)
    trainer = Trainer(config)
    real = trainer.optimizer.step

    def poison(*arguments):
        real(*arguments)
        if trainer.step == 2:
            longnet._core.ops.fill(trainer.model.norm.weight.data, math.nan)
            trainer.model.norm.weight.refresh()

    trainer.optimizer.step = poison
    with pytest.raises(DivergenceError, match=r"step 4: found loss nan, .*-00000002$"):
        trainer.train()
    assert load_latest(tmp_path / "run").step == 2


def test_an_anomaly_is_named(tmp_path):
    trainer = Trainer(tiny_config(tmp_path, device="cuda", detect_anomaly=True))
    longnet._core.ops.fill(trainer.model.blocks[1].ffn.fc1.bias.data, math.inf)
    with pytest.raises(DivergenceError, match=r"linear: found inf at \(0, 0.* in the result"):
        trainer.train()


def test_too_large_for_the_card(tmp_path):
    """The message says what would fit, and the next run works."""
    write_text(tmp_path, 200_000)
    config = tiny_config(
        tmp_path, "large", device="cuda", batch_size=1 << 14, sequence_length=1 << 13
    )
    with pytest.raises(
        longnet.OutOfMemoryError,
        match=r"step 1: .*; 134,217,728 tokens a pass, of which would fit: about ",
    ):
        Trainer(config).train()
    Trainer(tiny_config(tmp_path, "small", device="cuda")).train()


def test_the_estimate_is_what_a_step_takes(tmp_path):
    write_text(tmp_path, 200_000)
    config = tiny_config(tmp_path, device="cuda", batch_size=8, sequence_length=4096, steps=1)
    estimate = estimate_memory(config)
    longnet.reset_peak_memory("cuda")
    before = longnet.memory_stats("cuda")["bytes"]
    Trainer(config).train()
    peak = longnet.memory_stats("cuda")["peak_bytes"] - before
    assert estimate.peak_bytes(8 * 4096) == pytest.approx(peak, rel=0.1)


def test_no_tape_is_left(batch):
    """Without gradients a pass leaves no memory behind."""
    model = LongNet(Config(**SMALL), device="cuda")
    with no_grad():
        model.loss(*batch).item()
        before = longnet.memory_stats("cuda")["bytes"]
        model.loss(*batch).item()
    assert longnet.memory_stats("cuda")["bytes"] == before
