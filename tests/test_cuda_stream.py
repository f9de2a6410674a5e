"""longnet.Stream and longnet.Event."""

import threading

import numpy as np
import pytest

import longnet
from longnet import Event, Stream, Tensor

pytestmark = pytest.mark.gpu

BYTES = 256 << 20


def test_the_current_stream_is_the_threads_innermost():
    default = Stream.current()
    assert default.device == "cuda:0"
    assert default.handle == Stream.current("cuda:0").handle > 2
    outer, inner = Stream(), Stream()
    found = []
    with outer, inner:
        assert Stream.current().handle == inner.handle
        thread = threading.Thread(target=lambda: found.append(Stream.current().handle))
        thread.start()
        thread.join()
        with outer as same:
            assert same is outer
            assert Stream.current().handle == outer.handle
        assert Stream.current().handle == inner.handle
    assert Stream.current().handle == default.handle
    assert found == [default.handle]
    assert inner.__cuda_stream__() == (0, inner.handle)


def test_leaving_a_stream_that_is_not_the_innermost():
    outer, inner = Stream(), Stream()
    outer.__enter__()
    inner.__enter__()
    with pytest.raises(longnet.ConfigError, match="innermost"):
        outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)
    outer.__exit__(None, None, None)


def test_streams_inside_each_other_are_bounded():
    stream = Stream()
    for _ in range(64):
        stream.__enter__()
    with pytest.raises(longnet.ConfigError, match="at most 64"):
        stream.__enter__()
    for _ in range(64):
        stream.__exit__(None, None, None)


def test_events_measure_time():
    stream = Stream()
    with stream:
        big = Tensor.empty(BYTES, "uint8", "cuda")
        start = stream.record()
        big.copy()
        big.copy()
        stop = stream.record()
    seconds = stop.seconds_since(start)
    assert isinstance(start, Event)
    assert stop.done
    assert 1e-5 < seconds < 1.0
    start.synchronize()
    with pytest.raises(TypeError, match=r"expected a longnet\.Event"):
        stop.seconds_since(stream)
    with pytest.raises(TypeError):
        Event()


def test_wait_orders_streams(rng):
    first, second = Stream(), Stream()
    source = Tensor.empty(BYTES // 4, pinned=True)
    source.numpy()[...] = rng.random(BYTES // 4, dtype=np.float32)
    for by_event in (False, True):
        on_gpu = source.to("cuda", stream=first)
        second.wait(first.record() if by_event else first)
        back = on_gpu.to("cpu", stream=second)
        second.synchronize()
        np.testing.assert_array_equal(back.numpy(), source.numpy())
    with pytest.raises(TypeError, match=r"longnet\.Stream or a longnet\.Event"):
        first.wait(3)


def test_copies_to_a_stream_do_not_block(rng):
    stream = Stream()
    pinned = Tensor.empty(BYTES // 4, pinned=True)
    pinned.numpy()[...] = rng.random(BYTES // 4, dtype=np.float32)
    on_gpu = pinned.to("cuda", stream=stream)
    event = stream.record()
    was_done = event.done
    stream.synchronize()
    assert event.done
    assert not was_done  # 256 MiB take milliseconds
    back = on_gpu.to("cpu", stream=stream)
    stream.synchronize()
    np.testing.assert_array_equal(back.numpy(), pinned.numpy())


def test_a_stream_of_another_device_or_type_is_refused():
    with pytest.raises(TypeError, match=r"expected a longnet\.Stream"):
        Tensor.empty(3).to("cuda", stream=1)
    with pytest.raises(longnet.DeviceError, match="device cuda:77"):
        Tensor.empty(3).to("cuda:77")
    with pytest.raises(longnet.DeviceError, match="stream: on cuda:0, expected one on cuda:77"):
        Tensor.empty(3).to("cuda:77", stream=Stream())


def test_memory_used_on_another_stream_is_not_reused_too_soon():
    longnet.synchronize("cuda")
    sevens = Tensor(np.full(BYTES // 4, 7, np.float32)).to("cuda")
    nines = Tensor(np.full(BYTES // 4, 9, np.float32)).to("cuda")
    side = Stream()
    for _ in range(5):
        tensor = sevens.copy()  # on the default stream, which frees it
        with side:
            copies = [tensor.copy() for _ in range(4)]
        del tensor
        others = [nines.copy() for _ in range(2)]
        assert (copies[-1].to("cpu").numpy() == 7).all()
        del copies, others


def test_threads_use_their_streams_at_once(rng):
    arrays = [rng.random(1_000_003, dtype=np.float32) for _ in range(4)]
    results = [None] * 4

    def work(i):
        with Stream():
            for _ in range(5):
                results[i] = Tensor(arrays[i]).to("cuda")[::2].copy().to("cpu").numpy()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for array, result in zip(arrays, results, strict=True):
        np.testing.assert_array_equal(result, array[::2])
