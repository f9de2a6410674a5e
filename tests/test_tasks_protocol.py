"""What holds for every task: shapes, seeds, lengths, scores, chance, errors, batches."""

import hashlib
import itertools
import json
import time

import numpy as np
import pytest

from longnet import tasks
from longnet.errors import ConfigError, DataError
from longnet.tasks.draw import Draw

NAMES = tasks.names()
RULER = [n for n in NAMES if n.startswith("niah")] + ["vt", "cwe", "fwe"]

# SHA-256 of three examples of seed 7: what every machine and every version of NumPy makes.
HASHES = {
    "induction_heads": "15228f095044d0f2",
    "associative_recall": "5da12e81424ba888",
    "selective_copying": "de1f39b50130c342",
    "passkey": "3fb3f13857e306b1",
    "needle": "5d11608cbf221267",
    "kv_retrieval": "e5caf7810fcf523d",
    "kv_retrieval_75": "5cb4b8c57b321081",
    "kv_retrieval_140": "056faa3775b5ca61",
    "kv_retrieval_300": "0aee2f8f5fc75a16",
    "niah_single_1": "c514e5123b516d25",
    "niah_single_2": "6d983a5048e5528d",
    "niah_single_3": "c55952d69438a9b6",
    "niah_multikey_1": "9054b1473e877db8",
    "niah_multikey_2": "606b6d3fc3a5a907",
    "niah_multikey_3": "e637891fa7697710",
    "niah_multivalue": "a40e4603caa36b6f",
    "niah_multiquery": "7ffe45e5e6ef5f81",
    "vt": "f469f91473132796",
    "cwe": "92027673aa5de17c",
    "fwe": "29594ffe193273d1",
    "listops": "53f8c4ffaae834b1",
    "pathfinder32": "6ba51e3d01e7d8a4",
    "pathx128": "adfd8d46445535c4",
    "pathx256": "c63aef93b37d7ca7",
}


def lengths(task):
    least = task.minimum_length
    return (least, least + 13, 2 * least + 1) if least < 4096 else (least, least + 13)


def examples(name, count=3):
    task = tasks.get(name)
    return [(task, n, task.make(7, i, n)) for n in lengths(task) for i in range(count)]


def test_every_published_task_is_there():
    assert len(RULER) == 11
    expected = {"induction_heads", "associative_recall", "selective_copying", "passkey", "needle"}
    expected |= {f"kv_retrieval_{n}" for n in (75, 140, 300)}
    expected |= {"listops", "pathfinder32", "pathx128", "pathx256"}
    assert expected <= set(NAMES)
    assert [tasks.get(name).name for name in NAMES] == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_examples_are_well_formed(name):
    for task, length, example in examples(name):
        tokens, targets = example.tokens, example.targets
        assert tokens.dtype == targets.dtype == np.int32
        assert tokens.shape == targets.shape
        assert 0 < tokens.size <= length
        assert tokens.min() >= 0
        assert tokens.max() < task.vocab_size
        assert 0 <= task.pad < task.vocab_size
        asked = example.asked
        assert asked.size
        assert example.expected.min() >= 0
        assert example.expected.max() < task.vocab_size
        if task.classes is None:  # teacher forcing
            inner = asked[asked + 1 < tokens.size]
            np.testing.assert_array_equal(tokens[inner + 1], targets[inner])
        else:
            assert asked.tolist() == [tokens.size - 1]
            assert 0 <= targets[-1] < task.classes <= task.vocab_size
        if task.generates:
            assert (np.diff(asked) == 1).all()
            assert asked[-1] == tokens.size - 1
        assert example.prompt.size == asked[0] + 1
        assert len(example.answers) == len(example.spans) == len(example.evidence)
        for (start, stop), evidence in zip(example.spans, example.evidence, strict=True):
            assert (targets[start:stop] != tasks.IGNORE).all()
            assert -1 <= evidence < start
            if evidence >= 0:  # the text shows the answer there
                np.testing.assert_array_equal(
                    tokens[evidence:][: stop - start], targets[start:stop]
                )
        json.dumps(example.meta)


@pytest.mark.parametrize("name", NAMES)
def test_texts_fill_their_length(name):
    task = tasks.get(name)
    if task.classes is None and not name.startswith("kv_retrieval_"):
        longest = max(task.minimum_length * 3, 4096)
        sizes = [task.make(1, i, longest).tokens.size for i in range(5)]
        assert min(sizes) > longest - 200


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bytes_on_any_machine(name):
    task = tasks.get(name)
    digest = hashlib.sha256()
    for index in range(3):
        example = task.make(7, index, task.minimum_length + 64)
        for array in (example.tokens, example.targets):
            digest.update(array.astype("<i4").tobytes())
    assert digest.hexdigest()[:16] == HASHES[name]


@pytest.mark.parametrize("name", NAMES)
def test_seeds_and_indices_differ(name):
    task = tasks.get(name)
    made = [task.make(s, i, task.minimum_length) for s in range(2) for i in range(3)]
    made += [task.make(2**64 - 1, 2**64 - 1, task.minimum_length)]
    assert len({example.tokens.tobytes() for example in made}) == len(made)


@pytest.mark.parametrize("name", NAMES)
def test_scores(name):
    for task, _, example in examples(name, 1):
        right = example.expected
        assert task.score(example, right) == 1
        assert task.scores(example, right).shape == (len(example.answers),)
        wrong = right.copy()
        start, stop = example.spans[0]
        wrong[np.isin(example.asked, np.arange(start, stop))] = 0 if right[0] else 1
        scores = task.scores(example, wrong)
        assert scores[0] == 0
        assert (scores[1:] == 1).all()


@pytest.mark.parametrize("name", NAMES)
def test_chance_is_what_blind_answers_get(name):
    task = tasks.get(name)
    assert 0 < task.chance <= 0.5
    least = min(task.minimum_length, 8192)
    made = [task.make(3, i, max(least, task.minimum_length)) for i in range(10)]
    draw = Draw(1, 2, 3)
    answers = sum(len(e.answers) for e in made)
    rounds = 20 if task.chance < 1e-3 else max(1, 4000 // answers)
    mean = np.mean([task.score(e, task.blind(e, draw)) for e in made for _ in range(rounds)])
    spread = np.sqrt(task.chance * (1 - task.chance) / (answers * rounds))
    assert abs(mean - task.chance) < 4 * spread + 1e-12 if task.chance > 1e-3 else mean < 0.01


@pytest.mark.parametrize("name", NAMES)
def test_shortcuts_are_predictions(name):
    for task, _, example in examples(name, 1):
        assert 0 <= task.score(example, task.shortcut(example)) <= 1
    assert task.shortcut_name
    assert task.paper


@pytest.mark.parametrize("name", ["induction_heads", "passkey", "niah_single_2", "kv_retrieval"])
def test_shortcuts_see_the_end_of_the_text_alone(name):
    task = tasks.get(name)
    for index in range(40):
        example = task.make(0, index, 4096)
        scores = task.scores(example, task.shortcut(example))
        near = [
            start - evidence < task.window
            for (start, _), evidence in zip(example.spans, example.evidence, strict=True)
        ]
        assert (scores[near] == 1).all()
    assert tasks.shortcut_score(task, 4096, count=60) < 0.4


@pytest.mark.parametrize("name", [n for n in NAMES if tasks.get(n).has_depth])
def test_depth_is_where_the_evidence_lies(name):
    task = tasks.get(name)
    length = max(8000, task.minimum_length)
    for depth in (0.0, 0.25, 0.5, 1.0):
        for index in range(3):
            found = task.make(0, index, length, depth=depth).depths
            assert len(found) == 1
            assert abs(found[0] - depth) < 0.07
    drawn = [task.make(0, index, length).depths[0] for index in range(60)]
    assert np.histogram(drawn, 4, (0, 1))[0].min() > 4
    for depth in (-0.1, 1.01, float("nan")):
        with pytest.raises(DataError, match=rf"task {name}: depth {depth}, expected 0\.\.1"):
            task.make(0, 0, length, depth=depth)


def test_depth_of_a_task_that_has_none():
    with pytest.raises(DataError, match=r"task cwe: depth 0\.5, expected None"):
        tasks.get("cwe").make(0, 0, 4096, depth=0.5)


@pytest.mark.parametrize("name", NAMES)
def test_too_short(name):
    task = tasks.get(name)
    least = task.minimum_length
    with pytest.raises(
        DataError, match=rf"^task {name}: length {least - 1}, expected at least {least}$"
    ):
        task.make(0, 0, least - 1)
    with pytest.raises(DataError, match=f"length 0, expected at least {least}"):
        tasks.TaskBatches(task, 2, 0)


def test_unknown_tasks():
    with pytest.raises(
        ConfigError, match=r"^task 'niah_singel_2': unknown, expected niah_single_2 or"
    ):
        tasks.get("niah_singel_2")
    with pytest.raises(ConfigError, match="task 'zzz': unknown, expected one of induction_heads, "):
        tasks.get("zzz")
    with pytest.raises(ConfigError, match="task None: unknown"):
        tasks.get(None)


def test_bad_numbers():
    task = tasks.get("listops")
    with pytest.raises(DataError, match=r"seed: -1, expected 0\.\.2\^64-1"):
        task.make(-1, 0, 100)
    with pytest.raises(DataError, match=r"index: 18446744073709551616, expected 0\.\.2\^64-1"):
        task.make(0, 2**64, 100)
    with pytest.raises(TypeError, match=r"length: found 100\.0, expected an integer"):
        task.make(0, 0, 100.0)
    with pytest.raises(DataError, match="predictions of shape \\(2,\\), expected \\(1,\\)"):
        task.scores(task.make(0, 0, 100), [1, 2])
    with pytest.raises(DataError, match=r"task listops: token 16, expected 0\.\.15"):
        task.decode([1, 16])
    with pytest.raises(DataError, match="batch_size: 0, expected at least 1"):
        tasks.TaskBatches(task, 0, 100)
    with pytest.raises(DataError, match="workers: -1, expected at least 0"):
        tasks.TaskBatches(task, 1, 100, workers=-1)


@pytest.mark.parametrize("name", ["associative_recall", "fwe", "listops"])
def test_batches_are_the_examples_in_order(name):
    task = tasks.get(name)
    length = task.minimum_length + 100
    batches = tasks.TaskBatches(task, 3, length, seed=5)
    inputs, targets = (np.concatenate(a) for a in zip(next(batches), next(batches), strict=True))
    assert inputs.shape == targets.shape == (6, length)
    assert inputs.dtype == targets.dtype == np.int32
    for index in range(6):
        example = task.make(5, index, length)
        size = example.tokens.size
        np.testing.assert_array_equal(inputs[index, :size], example.tokens)
        np.testing.assert_array_equal(targets[index, :size], example.targets)
        assert (inputs[index, size:] == task.pad).all()
        assert (targets[index, size:] == tasks.IGNORE).all()


def test_resuming_is_exact():
    task = tasks.get("induction_heads")
    batches = tasks.TaskBatches(task, 3, 32, seed=2**64 - 1)
    next(batches)
    state = json.loads(json.dumps(batches.state_dict()))
    resumed = tasks.TaskBatches(task, 2, 32, seed=0)  # the batch size may differ
    resumed.load_state_dict(state)
    following = np.concatenate([next(batches)[0] for _ in range(2)])
    again = np.concatenate([inputs for inputs, _ in itertools.islice(resumed, 3)])
    np.testing.assert_array_equal(following, again)


def test_workers_make_the_same_examples():
    task = tasks.get("pathfinder32")
    alone = tasks.TaskBatches(task, 2, 1024, seed=3)
    batches = tasks.TaskBatches(task, 2, 1024, seed=3, workers=2)
    start = batches.state_dict()
    for _ in range(3):
        np.testing.assert_array_equal(next(batches), next(alone))
    assert batches.state_dict() == alone.state_dict()
    batches.load_state_dict(start)
    again = tasks.TaskBatches(task, 2, 1024, seed=3)
    np.testing.assert_array_equal(next(batches), next(again))


def test_workers_that_die_are_named():
    batches = tasks.TaskBatches(tasks.get("vt"), 1, 4096, workers=1)
    next(batches)
    (process,) = batches._workers._pool._processes.values()
    process.kill()
    process.join()
    with pytest.raises(DataError, match="task vt: a process that makes examples has ended"):
        list(itertools.islice(batches, 5))


def test_workers_end_with_their_batches():
    batches = tasks.TaskBatches(tasks.get("vt"), 1, 4096, workers=2)
    next(batches)
    processes = list(batches._workers._pool._processes.values())
    assert processes
    del batches
    deadline = time.monotonic() + 20
    # The pool's own thread waits for them too: whichever comes first learns the exit code.
    while any(process.exitcode is None for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "vt"}, "task position: task 'vt', expected 'listops'"),
        ({"length": 9}, "task position: length 9, expected 100"),
        ({"position": 1.5}, "position: 1.5, expected an integer"),
        ({"position": -1}, "position: -1, expected an integer"),
        ({"seed": 2**64}, "seed: 18446744073709551616, expected an integer"),
    ],
)
def test_bad_state_changes_nothing(change, message):
    batches = tasks.TaskBatches(tasks.get("listops"), 2, 100, seed=1)
    next(batches)
    before = batches.state_dict()
    with pytest.raises(DataError, match=message):
        batches.load_state_dict(before | change)
    with pytest.raises(DataError, match="no 'task', expected keys task, seed"):
        batches.load_state_dict({})
    assert batches.state_dict() == before
