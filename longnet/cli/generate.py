"""Continue a text with a trained model, whatever the length of the text."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from longnet.data import Tokenizer
    from longnet.generate import ModelCache
    from longnet.model import LongNet

HELP = "continue a text with a trained model"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Define the options of the command."""
    parser.add_argument(
        "--checkpoint",
        metavar="FOLDER",
        required=True,
        help="a run's folder, of which the latest checkpoint is meant, or one checkpoint",
    )
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="what to continue")
    prompt.add_argument("--prompt-file", metavar="FILE", help="likewise; - is standard input")
    parser.add_argument(
        "--max-new-tokens", metavar="N", type=int, default=256, help="(default: 256)"
    )
    parser.add_argument(
        "--temperature",
        type=float,
        default=1.0,
        help="divides the logits; 0 takes the most likely token each time (default: 1)",
    )
    parser.add_argument(
        "--top-k", metavar="K", type=int, help="choose among the K most likely tokens only"
    )
    parser.add_argument(
        "--top-p",
        metavar="P",
        type=float,
        default=1.0,
        help="choose among the fewest tokens only whose probabilities reach P (default: 1)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choices (default: 0)")
    parser.add_argument(
        "--stop",
        metavar="TEXT",
        action="append",
        default=[],
        help="end before this text; may be given many times",
    )
    parser.add_argument(
        "--cache-out", metavar="FILE", help="save what the model keeps of the prompt"
    )
    parser.add_argument(
        "--cache-in", metavar="FILE", help="go on from there; the prompt, if any, comes after it"
    )
    parser.add_argument(
        "--tokenizer",
        metavar="PATH",
        help="where the run's tokenizer.json lies now (default: where it lay)",
    )
    parser.add_argument("--device", default="cpu", help="such as cuda (default: cpu)")
    parser.add_argument(
        "--dtype",
        help="of activations, such as bfloat16 (default: the run's on a GPU, else float32)",
    )


def run(options: argparse.Namespace) -> int:
    """Write the continuation to standard output, and speeds to standard error; return the code."""
    from longnet.generate import load_cache, save_cache, stream_text

    sampling = {name: getattr(options, name) for name in ("temperature", "top_k", "top_p", "seed")}
    _check(options, sampling)
    model, tokenizer = _load(options)
    prompt = tokenizer.encode(_prompt(options))
    cache = model.cache()
    if options.cache_in is not None:
        cache = load_cache(options.cache_in, model, tokenizer=tokenizer.fingerprint)
    seconds = _read(model, cache, prompt)
    if options.cache_out is not None:
        save_cache(options.cache_out, cache, model, tokenizer=tokenizer.fingerprint)
    began, before, last = time.perf_counter(), cache.seen[0], "\n"
    found = stream_text(
        model,
        tokenizer,
        "",
        options.max_new_tokens,
        stop=options.stop,
        cache=cache,
        context=prompt,
        **sampling,
    )
    for text in found:
        print(text, end="", flush=True)
        last = text or last
    if not last.endswith("\n"):
        print()
    new = cache.seen[0] - before  # all but the last token
    print(
        f"longnet: {_speed(len(prompt), seconds, 'tokens read')}; "
        f"{_speed(new, time.perf_counter() - began, 'written')}",
        file=sys.stderr,
    )
    return 0


def _check(options: argparse.Namespace, sampling: dict[str, Any]) -> None:
    """Refuse what is wrong before anything is loaded and a long prompt read."""
    from longnet.errors import ConfigError
    from longnet.generate.sampling import Sampling
    from longnet.generate.text import StopStrings

    Sampling(**sampling)
    StopStrings(options.stop)
    if options.max_new_tokens < 0:
        raise ConfigError(f"max_new_tokens: found {options.max_new_tokens}, expected at least 0")


def _load(options: argparse.Namespace) -> tuple[LongNet, Tokenizer]:
    """The checkpoint's model, and the tokenizer that it was trained with."""
    from longnet.cli.load import load_trained
    from longnet.data import load_tokenizer
    from longnet.errors import ConfigError

    dtype = options.dtype or ("float32" if options.device == "cpu" else None)
    model, config, checkpoint = load_trained(options.checkpoint, options.device, dtype)
    tokenizer = load_tokenizer(options.tokenizer or config.data.tokenizer)
    expected = checkpoint.state["tokenizer"]
    if tokenizer.fingerprint != expected:
        raise ConfigError(
            f"tokenizer {tokenizer.name}: found {tokenizer.fingerprint}, expected {expected} as "
            f"{checkpoint.path}"
        )
    return model, tokenizer


def _prompt(options: argparse.Namespace) -> str | bytes:
    if options.prompt_file is None:
        return options.prompt or ""
    if options.prompt_file == "-":
        return sys.stdin.buffer.read()
    return Path(options.prompt_file).read_bytes()


def _read(model: LongNet, cache: ModelCache, prompt: np.ndarray) -> float:
    """Let the cache see the prompt; return how long it took."""
    from tqdm import tqdm

    from longnet.errors import DataError
    from longnet.generate import PIECE, read

    if not len(prompt) and cache.logits is None:
        raise DataError("prompt: found 0 tokens, expected at least 1: give --prompt TEXT")
    began = time.perf_counter()
    hidden = len(prompt) <= PIECE or not sys.stderr.isatty()
    with tqdm(total=len(prompt), unit="token", unit_scale=True, disable=hidden) as bar:
        for begin in range(0, len(prompt), PIECE):
            piece = prompt[begin : begin + PIECE]
            read(model, cache, [piece])
            bar.update(len(piece))
    return time.perf_counter() - began


def _speed(tokens: int, seconds: float, what: str) -> str:
    rate = tokens / seconds if seconds > 0 else 0.0
    return f"{tokens:,} {what} in {seconds:.2f} s, {rate:,.1f}/s"
