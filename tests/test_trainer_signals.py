"""SIGTERM and Ctrl-C: the step ends, the state is saved, and nothing is lost."""

import os
import signal
import threading

import pytest
from tiny_run import same_arrays, tiny_config

from longnet.checkpoint import load, load_latest
from longnet.train import Trainer, read_checkpoint, read_metrics
from longnet.train.signals import StopSignals


def send_in_loss(trainer, monkeypatch, call, *signals):
    """Make the `call`-th forward pass of training send signals to this process."""
    real, calls = trainer.model.loss, []

    def loss(*arguments, **options):
        calls.append(1)
        if len(calls) == call:
            for number in signals:
                os.kill(os.getpid(), number)
        return real(*arguments, **options)

    monkeypatch.setattr(trainer.model, "loss", loss)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_step_and_saves(tmp_path, monkeypatch, number):
    expected = load(Trainer(tiny_config(tmp_path, "unbroken")).train().checkpoint)
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    trainer = Trainer(tiny_config(tmp_path))
    send_in_loss(trainer, monkeypatch, 3, number)
    outcome = trainer.train()
    assert outcome.stopped_by == number
    assert outcome.evaluation is None or trainer.step == 6
    assert outcome.checkpoint == tmp_path / "run/step-00000003"
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)] == handlers
    resumed = Trainer(tiny_config(tmp_path), resume=read_checkpoint(tmp_path / "run")).train()
    assert same_arrays(load(resumed.checkpoint), expected)
    steps = [r["step"] for r in read_metrics(tmp_path / "run/metrics.jsonl")]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_second_ctrl_c_stops_at_once(tmp_path, monkeypatch):
    trainer = Trainer(tiny_config(tmp_path))
    handler = signal.getsignal(signal.SIGINT)
    send_in_loss(trainer, monkeypatch, 4, signal.SIGINT, signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
    assert trainer.step == 3 or trainer.step == 4
    assert signal.getsignal(signal.SIGINT) is handler
    assert load_latest(tmp_path / "run").step == 2


def test_which_signals_are_noted():
    with StopSignals() as stop:
        assert stop.received is None
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.received is signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.received is signal.SIGTERM


def test_training_outside_the_main_thread(tmp_path):
    outcomes = []
    trainer = Trainer(tiny_config(tmp_path, steps=1))
    thread = threading.Thread(target=lambda: outcomes.append(trainer.train()))
    thread.start()
    thread.join()
    assert load(outcomes[0].checkpoint).step == 1
