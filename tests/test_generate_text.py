"""Text from tokens: whole characters only, and the strings that end it."""

import pytest

from longnet import Config, LongNet
from longnet.data import ByteTokenizer, JsonTokenizer
from longnet.errors import ConfigError, DataError
from longnet.generate import generate, read, stream_text
from longnet.generate.text import StopStrings, TokenText

TEXT = "naïve — ‰ 日本語 🙂🙃 end\n"
CONFIG = Config(
    num_layers=1, embed_dim=32, num_heads=2, segment_lengths=(8, 16), dilation_rates=(1, 2)
)


@pytest.fixture(scope="module")
def model():
    return LongNet(CONFIG, seed=1)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    """Byte-level BPE, in which one character may take several tokens and one token begin a word."""
    tokenizers = pytest.importorskip("tokenizers")
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    made.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    made.train_from_iterator(["the end of the end of the text"] * 9, trainer)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    made.save(str(path))
    return JsonTokenizer(path)


def written(tokenizer, tokens, context=()):
    text = TokenText(tokenizer, context)
    parts = [text.push(int(token)) for token in tokens]
    return parts, text.finish()


@pytest.mark.parametrize("name", ["bytes", "bpe"])
def test_characters_come_whole(name, tokenizer):
    tokenizer = ByteTokenizer() if name == "bytes" else tokenizer
    tokens = tokenizer.encode(TEXT)
    parts, last = written(tokenizer, tokens)
    assert "".join(parts) == TEXT
    assert last == ""
    assert "\N{REPLACEMENT CHARACTER}" not in "".join(parts)
    assert sum(map(bool, parts)) > len(TEXT) / 2  # as soon as they are complete


def test_bytes_that_are_no_text(rng):
    tokens = rng.integers(0, 256, 3000)
    tokens[::7] = 0xE2  # begins a character of three bytes
    parts, last = written(ByteTokenizer(), tokens)
    assert "".join(parts) + last == ByteTokenizer().decode(tokens)


def test_tokens_that_are_no_text_do_not_wait_for_ever(tokenizer):
    parts, _ = written(tokenizer, [tokenizer.encode("\N{SNOWMAN}")[0]] * 40)
    assert len("".join(parts)) >= 36


def test_a_character_cut_off_at_the_end_is_marked(tokenizer):
    for one in (ByteTokenizer(), tokenizer):
        parts, last = written(one, one.encode("a\N{SNOWMAN}")[:-1])
        assert "".join(parts) == "a"
        assert last == "\N{REPLACEMENT CHARACTER}"


def test_the_prompt_may_end_within_a_character(tokenizer):
    for one in (ByteTokenizer(), tokenizer):
        tokens = one.encode("x\N{SNOWMAN}y")
        at = len(one.encode("x")) + 1
        parts, last = written(one, tokens[at:], context=tokens[:at])
        assert ("".join(parts) + last).lstrip("\N{REPLACEMENT CHARACTER}")[-1] == "y"
    assert "".join(written(ByteTokenizer(), [0x98, 0x83], context=[0xE2])[0]) == "\N{SNOWMAN}"


@pytest.mark.parametrize("size", [1, 2, 3, 100])
@pytest.mark.parametrize(
    ("stops", "text", "expected", "found"),
    [
        (["stop"], "do not stop here", "do not ", True),
        (["stop"], "do not sto", "do not sto", False),
        (["stst!"], "ststst!", "st", True),
        (["aab"], "aaaab", "aa", True),
        (["xyz", "yz"], "wxyz", "w", True),
        (["yz", "wxy!"], "wxyz", "wx", True),
        (["\n\n"], "one\ntwo\n\nthree", "one\ntwo", True),
        ([], "anything", "anything", False),
    ],
)
def test_stop_strings(stops, text, expected, found, size):
    rule, out = StopStrings(stops), ""
    for at in range(0, len(text), size):
        out += rule.push(text[at : at + size])
        assert expected.startswith(out)  # nothing has to be taken back
        if rule.found:
            break
    else:
        out += rule.finish()
    assert (out, rule.found) == (expected, found)


def test_the_first_token_is_written_as_after_those_before_it(model):
    """Bytes that end the character with which what the cache has read ended."""
    cache, prompt = model.cache(), list("x\N{SNOWMAN}".encode()[:-1])
    read(model, cache, [prompt])
    cache.logits[0, ByteTokenizer().encode("\N{SNOWMAN}")[-1]] = 1e4
    parts = stream_text(model, ByteTokenizer(), "", 1, cache=cache, context=prompt)
    assert "".join(parts) == "\N{SNOWMAN}"


def test_text_is_that_of_the_tokens(model):
    tokens = generate(model, list(b"ab"), 60, seed=4)
    text = "".join(stream_text(model, ByteTokenizer(), "ab", 60, seed=4))
    assert text == ByteTokenizer().decode(tokens)
    stop = text[20:22]
    cut = "".join(stream_text(model, ByteTokenizer(), b"ab", 60, seed=4, stop=stop))
    assert cut == text[: text.index(stop)]
    parts = stream_text(model, ByteTokenizer(), "ab", 10**9, seed=4, stop=["never to come"])
    assert next(parts) is not None


def test_end_of_text_ends(model, tokenizer, monkeypatch):
    wide = LongNet(Config(**CONFIG.to_dict() | {"vocab_size": 320}), seed=1)
    whole = generate(wide, tokenizer.encode("the"), 40, temperature=0)
    monkeypatch.setattr(tokenizer, "vocab_size", 320)
    text = "".join(stream_text(wide, tokenizer, "the", 40, temperature=0, seed=1))
    monkeypatch.setattr(tokenizer, "end_of_text", int(whole[5]))
    ended = list(stream_text(wide, tokenizer, "the", 40, temperature=0))
    first = whole.tolist().index(int(whole[5]))
    assert len(ended) == first + 1  # and what is left at the end
    assert text.startswith("".join(ended).rstrip("\N{REPLACEMENT CHARACTER}"))


def test_only_tokens_of_the_tokenizer_are_chosen():
    wide = LongNet(Config(**CONFIG.to_dict() | {"vocab_size": 4000}), seed=1)
    text = "".join(stream_text(wide, ByteTokenizer(), "a", 50, temperature=9.0))
    assert len(text.encode()) >= 50  # of 256 bytes alone, or decoding would have raised


def test_what_is_refused(model, tokenizer):
    with pytest.raises(
        ConfigError, match=r"tokenizer .*: found 2\d\d tokens, expected at most 256"
    ):
        stream_text(model, tokenizer, "a", 1)
    for stop in ([""], "", [b"x"], [3]):
        with pytest.raises(ConfigError, match=r"stop: found .* expected a string"):
            stream_text(model, ByteTokenizer(), "a", 1, stop=stop)
    with pytest.raises(DataError, match=r"prompt_tokens: .* at least 1"):
        stream_text(model, ByteTokenizer(), "", 1)
    with pytest.raises(ConfigError, match=r"top_p: found 2\.0"):
        stream_text(model, ByteTokenizer(), "a", 1, top_p=2.0)
