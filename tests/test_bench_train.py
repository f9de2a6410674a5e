"""The training benchmark's arithmetic on made-up figures; a small step on a GPU."""

import pytest

from longnet.bench import train
from longnet.bench.training import breakdown, steps
from longnet.bench.training.breakdown import Kernel, kind_of, middle_third, summarise
from longnet.bench.training.cases import Case, one_step


def test_gaps_and_overlaps():
    kernels = [
        Kernel("void dilated_sm90::attend<64, true>(...)", 0, 40),
        Kernel("nvjet_sm90_tst", 30, 60),
        Kernel("void norm_rows<...>", 70, 90),
        Kernel("next", 100, 110),
    ]
    seconds = summarise(kernels).seconds
    assert seconds["all"] == pytest.approx(100e-9)
    assert seconds["idle"] == pytest.approx(20e-9)
    assert seconds["attention forward"] == pytest.approx(40e-9)
    assert seconds["products"] == pytest.approx(30e-9)
    assert seconds["norms and elementwise"] == pytest.approx(20e-9)
    assert summarise(kernels).slowest[0] == (kernels[0].name, 1, pytest.approx(40e-9))


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (
            "void dilated_sm90::differentiate<64, true>(dilated_sm90::backward)",
            "attention backward",
        ),
        ("void loss_rows<__nv_bfloat16>(job)", "loss"),
        ("void step<float, __nv_bfloat16>(job)", "optimiser"),
        ("void cublasLt::epilogue::impl::globalKernelBgradAB_v2<8>", "products"),
        ("Memcpy HtoD (Pinned -> Device)", "copies and fills"),
        ("void turn_rows<__nv_bfloat16, 64>(job)", "norms and elementwise"),
    ],
)
def test_kinds(name, kind):
    assert kind_of(name) == kind


def test_the_middle_of_three_steps():
    kernels = [Kernel(str(i), i, i + 1) for i in range(9)]
    assert [k.name for k in middle_third(kernels)] == ["3", "4", "5", "6"]


def test_the_table():
    rows = [
        train.Row("ours", 65536, 100.0, 655360.0, 400.0, 20.0),
        train.Row("peer", 65536, error="ImportError: no torchscale"),
    ]
    lines = train.table(rows)
    assert lines[1].split() == ["ours", "65,536", "100.0", "655,360", "400", "20.0"]
    assert lines[2].endswith("ImportError: no torchscale")


def test_names_of_cases():
    assert one_step("longnet", 8192, "block") == Case(
        "longnet, 8,192, block", "longnet", 8192, 8, "block"
    )
    assert one_step("longnet", 1 << 20).batch == 1


@pytest.mark.gpu
def test_a_small_step(monkeypatch):
    monkeypatch.setattr(steps, "MODEL", "demo")
    case = Case("small", "longnet", 512, 2)
    row = train.measure(case, steps=1)
    assert row.error is None
    assert row.tokens_per_second > 0
    assert row.tflops > 0
    step = steps.LongnetStep(case)
    moved = breakdown.traffic(step)
    assert moved["norms and elementwise"] > 0
    assert moved["products"] > 0
    assert sum(step.flops().values()) == pytest.approx(1024 * step.flops_per_token)
