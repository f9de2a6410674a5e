"""longnet.torch.DilatedAttention: dropout, autocast, checkpointing, torch.compile."""

import copy
import functools
import re
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", minversion="2.6", reason="PyTorch is not installed")

from torch.utils.checkpoint import checkpoint  # noqa: E402

import longnet  # noqa: E402
from longnet.torch import DilatedAttention, dilated_attention  # noqa: E402


@pytest.fixture(autouse=True)
def _fresh_compiler():
    yield
    torch.compiler.reset()


def tensors(rng, n=37, dtype=None):
    """Q, k, v of random numbers, with gradients."""
    arrays = rng.standard_normal((3, 2, n, 4, 16), dtype=np.float32)
    return [torch.from_numpy(x).to(dtype).requires_grad_() for x in arrays]


def gradients(function, inputs):
    """The result and gradients that depend on all of it."""
    out = function(*inputs)
    return out.detach(), *torch.autograd.grad(out.square().sum(), inputs)


def assert_same(some, others):
    for x, y in zip(some, others, strict=True):
        assert torch.equal(x, y)


def test_options_are_the_functions(rng):
    options = {"offsets": "grouped", "gradient": "detached", "zero_keys": True, "scale": 0.25}
    module = DilatedAttention([8, 24], [1, 3], False, **options)
    inputs = tensors(rng)
    lengths = torch.tensor([37, 20])
    out, lse = module(*inputs, lengths=lengths, return_lse=True)
    expected = dilated_attention(
        *inputs, [8, 24], [1, 3], False, **options, lengths=lengths, return_lse=True
    )
    assert_same((out, lse), expected)
    assert_same(
        gradients(module, inputs),
        gradients(lambda *x: dilated_attention(*x, [8, 24], [1, 3], False, **options), inputs),
    )


def test_it_is_a_module_without_weights():
    module = DilatedAttention([8, 16], [1, 2], offsets="grouped", dropout=0.1)
    assert module.state_dict() == {}
    module.load_state_dict({})
    assert not list(module.parameters())
    assert repr(module) == (
        "DilatedAttention((8, 16), (1, 2), causal=True, offsets='grouped', gradient='exact', "
        "zero_keys=False, scale=None, dropout=0.1)"
    )
    assert repr(eval(repr(module))) == repr(copy.deepcopy(module)) == repr(module)
    with pytest.raises(longnet.ConfigError, match="segment length 8 and dilation rate 9"):
        DilatedAttention([8], [9])


def test_dropout_follows_torchs_generator(rng):
    module = DilatedAttention([8, 24], [1, 3], dropout=0.3)
    inputs = tensors(rng)
    torch.manual_seed(1)
    first, second = gradients(module, inputs), gradients(module, inputs)
    torch.manual_seed(1)
    assert_same(gradients(module, inputs), first)
    assert not torch.equal(first[0], second[0])
    state = torch.get_rng_state()
    module.eval()
    assert_same(gradients(module, inputs), gradients(DilatedAttention([8, 24], [1, 3]), inputs))
    assert torch.equal(torch.get_rng_state(), state)  # nothing drawn where nothing is dropped


def test_backward_drops_what_forward_dropped(rng):
    q, k, v = tensors(rng)
    out = DilatedAttention([8, 24], [1, 3], dropout=0.5)(q, k, v)
    dout = torch.from_numpy(rng.standard_normal(out.shape, dtype=np.float32))
    (dv,) = torch.autograd.grad(out, v, dout)
    # linear in v: the gradient along v itself is the output
    torch.testing.assert_close((dv * v).sum(), (out * dout).sum(), rtol=1e-5, atol=1e-4)


def test_seeds_are_the_extensions(rng):
    q, k, v = tensors(rng)
    attention = longnet.DilatedAttention([8, 24], [1, 3], dropout=0.3)
    module = DilatedAttention([8, 24], [1, 3], dropout=0.3)
    for seed in (0, 2**64 - 1):
        expected, _ = attention.forward(*(x.detach().numpy() for x in (q, k, v)), seed=seed)
        np.testing.assert_array_equal(module(q, k, v, seed=seed).detach().numpy(), expected)


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_replays_dropout(rng, reentrant):
    module = DilatedAttention([8, 24], [1, 3], dropout=0.3)
    inputs = tensors(rng)

    def recomputed(*x):
        return checkpoint(module, *x, use_reentrant=reentrant)

    results = []
    for function in (module, recomputed):
        torch.manual_seed(2)
        for x in inputs:
            x.grad = None
        out = function(*inputs)
        torch.rand(3)  # moves the generator on before backward
        out.square().sum().backward()
        results.append([out.detach(), *(x.grad for x in inputs)])
    assert_same(*results)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_casts(rng, dtype):
    module = DilatedAttention([8, 24], [1, 3])
    q, k, v = tensors(rng)
    with torch.autocast("cpu", dtype=dtype):
        out = module(q, k.to(torch.bfloat16), v)
        assert out.dtype == torch.nn.functional.scaled_dot_product_attention(q, k, v).dtype == dtype
    out.sum().backward()
    assert q.grad.dtype == torch.float32
    assert torch.equal(out, module(q.to(dtype), k.to(torch.bfloat16).to(dtype), v.to(dtype)))


def test_document(monkeypatch):
    """The code in docs/torch.md, without the compiler that compiled it would need."""
    compile_eagerly = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", compile_eagerly)
    page = (Path(__file__).parents[1] / "docs/torch.md").read_text()
    names: dict = {}
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, names)
    assert not names["out"][0, 4000:].any()


def test_meta_tensors_have_shapes(rng):
    out, lse = DilatedAttention([8], [1])(*(x.to("meta") for x in tensors(rng)), return_lse=True)
    assert (out.shape, lse.shape) == ((2, 37, 4, 16), (2, 4, 37))


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_equals_eager(rng, backend, dtype):
    module = DilatedAttention([8, 24], [1, 3])
    compiled = torch.compile(module, fullgraph=True, backend=backend)
    for n in (37, 20, 5):  # the second length makes N symbolic
        inputs = tensors(rng, n, dtype)
        out = compiled(*inputs)
        dout = torch.ones_like(out) * out.detach()
        expected = module(*inputs)
        assert torch.equal(out, expected)
        assert_same(
            torch.autograd.grad(out, inputs, dout), torch.autograd.grad(expected, inputs, dout)
        )


def test_compiled_dropout(rng):
    module = DilatedAttention([8, 24], [1, 3], dropout=0.3)
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    inputs = tensors(rng)
    for seed in (3, 2**64 - 5):
        assert_same(
            gradients(lambda *x, seed=seed: compiled(*x, seed=seed), inputs),
            gradients(lambda *x, seed=seed: module(*x, seed=seed), inputs),
        )
    torch.manual_seed(4)
    first, second = gradients(compiled, inputs), gradients(compiled, inputs)
    torch.manual_seed(4)
    assert_same(gradients(compiled, inputs), first)
    assert not torch.equal(first[0], second[0])


def test_compiled_with_all_the_rest(rng):
    """Autocast, lengths, the LSE, a checkpoint and a projection in one graph."""
    module = DilatedAttention([8, 24], [1, 3])
    lengths = torch.tensor([37, 20])
    weight = torch.from_numpy(rng.standard_normal((64, 192), dtype=np.float32) / 8)
    x = torch.from_numpy(rng.standard_normal((2, 37, 64), dtype=np.float32))

    def block(x, weight):
        q, k, v = (x @ weight).view(2, 37, 3, 4, 16).unbind(2)
        out, lse = checkpoint(
            lambda *qkv: module(*qkv, lengths=lengths, return_lse=True),
            q,
            k,
            v,
            use_reentrant=False,
        )
        return out.float() * lse.clamp(min=-1.0).transpose(1, 2).unsqueeze(3)

    def run(x, weight):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return block(x, weight)

    inputs = [x.requires_grad_(), weight.requires_grad_()]
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert_same(gradients(compiled, inputs), gradients(run, inputs))
