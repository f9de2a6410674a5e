"""`longnet generate`: what it writes, and what it refuses."""

import subprocess
import sys

import pytest
from tiny_run import tiny_config

from longnet.cli import main
from longnet.config import RunConfig
from longnet.data import ByteTokenizer
from longnet.generate import generate
from longnet.model import LongNet
from longnet.train import Trainer, read_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The folder of a tiny run."""
    folder = tmp_path_factory.mktemp("generate")
    Trainer(tiny_config(folder, steps=2, eval_every=2)).train()
    return folder / "run"


def call(capsys, run, *arguments):
    """Exit code, standard output and standard error."""
    try:
        code = main(["generate", "--checkpoint", str(run), *arguments])
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def written(run, prompt, count, dtype="float32", **sampling):
    """What the library writes."""
    config = RunConfig.from_dict(read_checkpoint(run).state["config"])
    model = LongNet(config.model, dtype=dtype)
    model.load_state_dict(read_checkpoint(run).arrays["model"])
    return ByteTokenizer().decode(generate(model, list(prompt.encode()), count, **sampling))


def test_it_writes_what_the_library_does(run, capsys):
    options = ("--max-new-tokens", "40", "--temperature", "0.9", "--top-k", "20", "--seed", "3")
    code, out, err = call(capsys, run, "--prompt", "hello", *options)
    assert code == 0
    expected = written(run, "hello", 40, temperature=0.9, top_k=20, seed=3)
    assert out.removesuffix("\n") == expected.removesuffix("\n")
    assert err.startswith("longnet: 5 tokens read in ")
    assert "39 written in " in err
    stop = expected[10:12]
    code, out, _ = call(capsys, run, "--prompt", "hello", *options, "--stop", stop)
    assert out.removesuffix("\n") == expected[: expected.index(stop)].removesuffix("\n")


def test_another_dtype(run, capsys):
    options = ("--prompt", "hello", "--max-new-tokens", "20", "--dtype", "bfloat16")
    code, out, _ = call(capsys, run, *options)
    assert code == 0
    expected = written(run, "hello", 20, dtype="bfloat16")
    assert out.removesuffix("\n") == expected.removesuffix("\n")


def test_prompts_from_files(run, capsys, tmp_path):
    (tmp_path / "prompt.txt").write_bytes(b"hello")
    greedy = ("--temperature", "0", "--max-new-tokens", "8")
    _, expected, _ = call(capsys, run, "--prompt", "hello", *greedy)
    _, found, _ = call(capsys, run, "--prompt-file", str(tmp_path / "prompt.txt"), *greedy)
    assert found == expected
    command = [sys.executable, "-P", "-m", "longnet", "generate", "--checkpoint", str(run), *greedy]
    piped = subprocess.run(
        [*command, "--prompt-file", "-"], input=b"hello", capture_output=True, timeout=120
    )
    assert piped.returncode == 0, piped.stderr
    assert piped.stdout.decode("utf-8", "replace") == expected


def test_a_prompt_is_read_once(run, capsys, tmp_path):
    cache = str(tmp_path / "prompt.cache")
    greedy = ("--temperature", "0", "--max-new-tokens", "30")
    _, expected, _ = call(capsys, run, "--prompt", "hello world", *greedy)
    code, out, _ = call(
        capsys, run, "--prompt", "hello", "--cache-out", cache, "--max-new-tokens", "0"
    )
    assert (code, out) == (0, "")
    code, out, err = call(capsys, run, "--prompt", " world", "--cache-in", cache, *greedy)
    assert (code, out) == (0, expected)
    assert err.startswith("longnet: 6 tokens read")
    code, out, err = call(capsys, run, "--cache-in", cache, *greedy)
    assert (code, out) == (0, call(capsys, run, "--prompt", "hello", *greedy)[1])
    assert err.startswith("longnet: 0 tokens read")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ((), 2, "prompt: found 0 tokens, expected at least 1: give --prompt TEXT"),
        (("--prompt", ""), 2, "prompt: found 0 tokens"),
        (("--prompt", "a", "--top-p", "1.5"), 2, "top_p: found 1.5, expected a probability in"),
        (("--prompt", "a", "--top-p", "0"), 2, "top_p: found 0.0, expected a probability in (0, 1"),
        (("--prompt", "a", "--stop", ""), 2, "stop: found '', expected a string"),
        (("--prompt", "a", "--max-new-tokens", "-1"), 2, "max_new_tokens: found -1"),
        (("--prompt", "a", "--prompt-file", "b"), 2, "not allowed with argument"),
        (("--prompt-file", "absent.txt"), 1, "absent.txt: No such file"),
        (("--prompt", "a", "--dtype", "int8"), 2, "dtype: found 'int8'"),
        (("--prompt", "a", "--tokenizer", "absent.json"), 2, "absent.json: No such file"),
        (("--prompt", "a", "--cache-in", "absent"), 1, "absent: cannot be read: No such file"),
        (("--prompt", "a", "--cache-out", "absent/x"), 1, "absent/x: cannot be saved: No such"),
    ],
)
def test_what_is_refused_is_one_line(run, capsys, arguments, code, message):
    found, out, err = call(capsys, run, *arguments)
    assert (found, out) == (code, "")
    assert err.startswith("longnet: error: ")
    assert message in err
    assert err.count("\n") == 1


def test_a_checkpoint_that_is_none_is_refused(tmp_path, capsys):
    code, _, err = call(capsys, tmp_path / "nothing", "--prompt", "a")
    assert (code, err.count("\n")) == (1, 1)
    assert "nothing: found no checkpoint" in err


def test_the_tokenizer_must_be_the_checkpoint_s(run, capsys, tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    path = tmp_path / "tokenizer.json"
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0}, unk_token="a")).save(str(path))
    code, _, err = call(capsys, run, "--prompt", "a", "--tokenizer", str(path))
    assert code == 2
    assert "found tokenizer.json-" in err
    assert "expected bytes-256 as " in err


def test_a_cache_of_another_model_is_refused(run, capsys, tmp_path):
    cache, other = str(tmp_path / "cache"), tmp_path / "other"
    other.mkdir()
    Trainer(tiny_config(other, steps=1, eval_every=1)).train()
    call(capsys, run, "--prompt", "hello", "--cache-out", cache, "--max-new-tokens", "0")
    code, _, err = call(capsys, other / "run", "--cache-in", cache)
    assert code == 1
    assert "found the cache of another model or dtype" in err
