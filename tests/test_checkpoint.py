"""Checkpoints: bit-exact round trips, what is kept, and damage that must not pass."""

import json
import multiprocessing
import shutil
import stat

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from longnet.checkpoint import latest, load, load_latest, save
from longnet.errors import CheckpointError

DTYPES = [
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", ml_dtypes.bfloat16),
]
FILES = ["manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"]


def some_arrays(seed=0):
    rng = np.random.default_rng(seed)
    weights = {f"block.{i}": rng.standard_normal((7, 5), np.float32) for i in range(3)}
    moments = {name: rng.standard_normal(3).astype(ml_dtypes.bfloat16) for name in weights}
    return {"model": weights, "optimizer": moments}


def some_state():
    return {"rng": [2**100, -1], "data": {"position": 7}, "loss": 0.1, "text": "ü\ud800", "x": None}


def same_bits(found, expected):
    return (
        found.dtype == expected.dtype
        and found.shape == expected.shape
        and found.tobytes() == expected.tobytes()
    )


def means_the_same(bad, good):
    try:
        return json.loads(bad) == json.loads(good)
    except ValueError:
        return False


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (5, 3), (2, 3, 4, 5)])
def test_every_bit_of_every_dtype_comes_back(tmp_path, dtype, shape):
    dtype = np.dtype(dtype)
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)
    array = (raw % 2 if dtype.kind == "b" else raw).view(dtype).reshape(shape)  # NaN payloads too
    path = save(tmp_path, 3, {"model": {"w": array}}, {})
    found = load(path).arrays["model"]["w"]
    assert same_bits(found, array)
    assert found.flags.writeable


@settings(deadline=None, max_examples=25)
@given(
    arrays=st.dictionaries(
        st.text(st.characters(exclude_categories=["Cs"])).filter(lambda n: n != "__metadata__"),
        hnp.arrays(np.float32, hnp.array_shapes(max_side=5), elements=st.floats(width=32)),
        max_size=4,
    ),
    state=st.dictionaries(
        st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists, max_leaves=5)
    ),
)
def test_odd_names_and_states_come_back(tmp_path_factory, arrays, state):
    folder = tmp_path_factory.mktemp("odd")
    found = load(save(folder, 1, {"model": arrays}, state))
    assert found.state == state
    assert found.arrays["model"].keys() == arrays.keys()
    assert all(same_bits(found.arrays["model"][name], arrays[name]) for name in arrays)


def test_what_comes_back(tmp_path):
    arrays, state = some_arrays(), some_state()
    path = save(tmp_path / "a" / "b", 100, arrays, state)
    assert path == tmp_path / "a" / "b" / "step-00000100"
    assert names_in(path) == FILES
    assert names_in(path.parent) == [path.name]
    found = load_latest(path.parent)
    assert (found.path, found.step, found.state) == (path, 100, state)
    assert found.arrays.keys() == arrays.keys()
    for group, named in arrays.items():
        assert found.arrays[group].keys() == named.keys()
        assert all(same_bits(found.arrays[group][name], named[name]) for name in named)


def test_strided_and_big_endian_arrays_keep_their_values(tmp_path):
    base = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    named = {"t": base.T, "step": base[:, ::2, ::-1], "big": base.astype(">f4")}
    named["row"] = np.broadcast_to(base[0, 0], (4, 5))
    found = load(save(tmp_path, 0, {"model": named}, {})).arrays["model"]
    assert all(np.array_equal(found[name], named[name]) for name in named)


def test_the_checkpoint_shares_no_memory_with_its_file(tmp_path):
    path = save(tmp_path, 1, some_arrays(), {})
    first = load(path)
    first.arrays["model"]["block.0"][:] = np.nan
    assert same_bits(load(path).arrays["model"]["block.0"], some_arrays()["model"]["block.0"])


def test_the_last_ones_are_kept(tmp_path):
    for step in (5, 10, 99_999_999, 100_000_000, 1_000_000_000):
        save(tmp_path, step, some_arrays(step), {}, keep=3)
    assert names_in(tmp_path) == ["step-100000000", "step-1000000000", "step-99999999"]
    assert load_latest(tmp_path).step == 1_000_000_000
    save(tmp_path, 2_000_000_000, {}, {}, keep=1)
    assert names_in(tmp_path) == ["step-2000000000"]


def test_later_checkpoints_are_never_removed(tmp_path):
    for step in (10, 20, 30):
        save(tmp_path, step, {}, {}, keep=3)
    save(tmp_path, 15, {}, {}, keep=1)
    assert names_in(tmp_path) == ["step-00000015", "step-00000020", "step-00000030"]


def test_a_step_saved_again_replaces_the_first(tmp_path):
    save(tmp_path, 9, some_arrays(), {}, keep=2)
    for take in range(3):
        save(tmp_path, 10, some_arrays(take), {"take": take}, keep=2)
        assert load_latest(tmp_path).state == {"take": take}
    assert names_in(tmp_path) == ["step-00000009", "step-00000010.2"]


def test_none_yet(tmp_path):
    assert latest(tmp_path) is latest(tmp_path / "absent") is None
    with pytest.raises(CheckpointError, match="found no checkpoint, expected a folder such as"):
        load_latest(tmp_path)


def test_what_is_not_a_checkpoint_is_ignored(tmp_path):
    save(tmp_path, 7, {}, {})
    (tmp_path / "step-00000008").touch()
    for name in ("step-9", "step-00000009.old", ".unfinished-step-00000010-1", "step-٠٠٠٠٠٠٠٩"):
        (tmp_path / name).mkdir()
    assert latest(tmp_path) == tmp_path / "step-00000007"


def test_files_are_as_readable_as_their_folder_allows(tmp_path):
    path = save(tmp_path, 1, some_arrays(), {})
    assert len({stat.S_IMODE((path / name).stat().st_mode) for name in FILES}) == 1


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_bit_is_found(tmp_path, name):
    arrays, state = some_arrays(), some_state()
    path = save(tmp_path, 12, arrays, state)
    good = (path / name).read_bytes()
    rng = np.random.default_rng(3)
    for _ in range(60):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= 1 << int(rng.integers(8))
        (path / name).write_bytes(bad)
        # White space of the manifest may change without harm; anything else may not.
        if name == "manifest.json" and means_the_same(bad, good):
            assert load(path).state == state
            continue
        with pytest.raises(CheckpointError, match="expected") as error:
            load(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    (path / name).write_bytes(good)
    load(path)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("name", FILES)
def test_truncated_and_missing_files_are_found(tmp_path, name, verify):
    path = save(tmp_path, 12, some_arrays(), {})
    good = (path / name).read_bytes()
    for size in {0, 1, len(good) // 2, len(good) - 1}:
        (path / name).write_bytes(good[:size])
        with pytest.raises(CheckpointError, match=rf"{name}: found .*, expected"):
            load(path, verify)
    (path / name).unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: found no such file, expected"):
        load(path, verify)


def test_without_verify_only_the_hash_is_not_compared(tmp_path):
    path = save(tmp_path, 1, some_arrays(), {})
    file = path / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert load(path, verify=False).step == 1
    with pytest.raises(CheckpointError, match=r"model\.safetensors: found SHA-256 '.*', expected"):
        load(path)
    file.write_bytes(b"\xff" * len(content))
    with pytest.raises(CheckpointError, match=r"model\.safetensors: cannot be read"):
        load(path, verify=False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 2}, "found format_version 2, expected 1"),
        ({"format_version": True}, "found format_version True, expected 1"),
        ({"step": 5}, "found step 5, expected 12"),
        ({"files": {}}, "expected a step, and files with state.json"),
        ({"files": {"state.json": 3}}, "found 3 for state.json, expected its size and sha256"),
        ({"files": {"state.json": {"size": 1}}}, "expected its size and sha256"),
    ],
)
def test_manifests_of_another_kind(tmp_path, change, message):
    path = save(tmp_path, 12, {}, {})
    manifest = json.loads((path / "manifest.json").read_text())
    (path / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(CheckpointError) as error:
        load(path)
    assert f"{path / 'manifest.json'}: " in str(error.value)
    assert message in str(error.value)


def test_a_manifest_names_no_file_elsewhere(tmp_path):
    path = save(tmp_path, 12, {}, {})
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["files"]["../x.safetensors"] = {"size": 0, "sha256": ""}
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"the file name '\.\./x\.safetensors', expected"):
        load(path)


def test_the_folder_above_is_not_a_checkpoint(tmp_path):
    save(tmp_path, 12, {}, {})
    with pytest.raises(CheckpointError, match=r"manifest\.json: found no such file, expected one"):
        load(tmp_path)


def test_a_damaged_latest_is_not_passed_over(tmp_path):
    paths = [save(tmp_path, step, some_arrays(step), {}, keep=4) for step in (1, 2, 3, 4)]
    for path in paths[2:]:
        (path / "model.safetensors").write_bytes(b"")
    message = r"step-00000004/model\.safetensors: found .*; .*step-00000002 is intact$"
    with pytest.raises(CheckpointError, match=message):
        load_latest(tmp_path)
    assert load(paths[1]).step == 2
    for path in paths[:2]:
        shutil.rmtree(path)
    with pytest.raises(CheckpointError, match="no older one is intact"):
        load_latest(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1, {}, {}), "found step -1, keep 3; expected at least 0 and at least 1"),
        ((1, {}, {}, 0), "found step 1, keep 0; expected at least 0 and at least 1"),
        ((1, {"../x": {}}, {}), "group: found '../x', expected a name of a-z, 0-9 and _"),
        ((1, {"m": {"w": np.array("a")}}, {}), "m/w: found <U1, expected bool, an integer"),
        ((1, {"m": {"w": np.array(None)}}, {}), "m/w: found object, expected bool, an integer"),
        ((1, {"m": {"w": np.zeros(1, "c16")}}, {}), "m/w: found complex128, expected bool"),
        ((1, {"m": {"__metadata__": np.zeros(1)}}, {}), "found the name __metadata__"),
        ((1, {}, {"a": np.float32(1)}), "state: found Object of type float32 is not JSON"),
    ],
)
def test_what_cannot_be_stored(tmp_path, arguments, message):
    with pytest.raises(CheckpointError) as error:
        save(tmp_path, *arguments)
    assert message in str(error.value)
    assert names_in(tmp_path) == []


def _hold_lock(folder, held, release):
    from longnet.checkpoint.writer import _exclusive

    with _exclusive(folder):
        held.set()
        release.wait(30)


def test_two_processes_do_not_save_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    other = context.Process(target=_hold_lock, args=(tmp_path, held, release))
    other.start()
    try:
        assert held.wait(30)
        with pytest.raises(CheckpointError, match="found another save going on, expected none"):
            save(tmp_path, 1, {}, {})
    finally:
        release.set()
        other.join()
    save(tmp_path, 1, {}, {})
