"""The sockets through which ranks find each other and hear who is gone."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from longnet import CommunicatorError
from longnet.communicator.hub import Hub, send
from longnet.communicator.rendezvous import Rendezvous

TIMEOUT = 20.0


def connect(size: int, timeout: float = TIMEOUT) -> list[Rendezvous]:
    """All ranks of a job, in this process."""
    hub = Hub(size, ("127.0.0.1", 0), "job")

    def join(rank: int) -> Rendezvous:
        own = hub if rank == 0 else None
        return Rendezvous.connect(rank, size, [hub.address], timeout, "job", own)

    return on_all(range(size), join)


def on_all(things, call) -> list:
    """What `call` returns or raises for each, all at once."""
    with ThreadPoolExecutor(len(things)) as pool:
        futures = [pool.submit(call, thing) for thing in things]
        return [future.exception() or future.result() for future in futures]


@pytest.fixture
def four():
    ranks = connect(4)
    yield ranks
    for rank in ranks:
        rank.close()


def drop(rendezvous: Rendezvous) -> None:
    """End the connection as a process does that is killed."""
    rendezvous._link._connection.shutdown(socket.SHUT_RDWR)


def test_gather_broadcast_barrier(four):
    for turn in range(3):
        found = on_all(four, lambda r, turn=turn: r.gather((r.rank, turn, b"x" * 3000), "gather"))
        assert found == [[(rank, turn, b"x" * 3000) for rank in range(4)]] * 4
    assert on_all(four, lambda r: r.broadcast(r.rank * 10, "id", root=2)) == [20] * 4
    assert on_all(four, lambda r: r.barrier()) == [None] * 4


def test_groups_have_their_own_order_and_do_not_mix(four):
    groups = on_all(four, lambda r: r.group([2, 0] if r.rank % 2 == 0 else [1, 3]))
    assert [(g.rank, g.size) for g in groups] == [(1, 2), (0, 2), (0, 2), (1, 2)]
    found = on_all(four, lambda r: groups[r.rank].gather(r.rank, "gather"))
    assert found == [[2, 0], [1, 3], [2, 0], [1, 3]]
    assert four[0].group([1]) is None
    groups[1].close()  # ends with the whole
    assert on_all(four[1::2], lambda r: groups[r.rank].gather(5, "gather")) == [[5, 5]] * 2


def test_a_lost_rank_is_named_while_others_wait(four):
    timer = threading.Timer(0.05, drop, [four[3]])
    timer.start()
    start = time.monotonic()
    for rank, error in enumerate(on_all(four[:3], lambda r: r.gather(0, "all_gather"))):
        assert str(error) == (
            f"rank {rank} of 4, all_gather: rank 3 died: its connection has ended"
        )
    assert time.monotonic() - start < TIMEOUT / 2
    assert four[1].failure == "rank 3 died: its connection has ended"


def test_groups_without_the_lost_rank_go_on(four):
    groups = on_all(four, lambda r: r.group([1, 2]))
    drop(four[3])
    while four[1].failure is None:
        time.sleep(0.01)
    assert groups[1].failure is None
    assert on_all(groups[1:3], lambda g: g.gather(g.rank, "gather")) == [[0, 1]] * 2


def test_rank_0_is_named_when_the_hub_is_gone(four):
    drop(four[1])  # as if the connection broke on the way
    assert "rank 0 died" in str(on_all([four[1]], lambda r: r.gather(0, "x"))[0])


def test_abort_reaches_all(four):
    timer = threading.Timer(0.05, four[2].abort, ["rank 2 aborted: enough"])
    timer.start()
    for error in on_all(four[:2], lambda r: r.barrier()):
        assert isinstance(error, CommunicatorError)
        assert str(error).endswith("barrier: rank 2 aborted: enough")


def test_a_rank_that_closed_is_named_but_what_it_said_counts(four):
    late = threading.Timer(0.1, lambda: four[3].gather(3, "gather"))
    late.start()

    def call(r):
        if r.rank == 0:
            threading.Timer(0.05, r.close).start()
        return r.gather(r.rank, "gather") if r.rank else None

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(four[0].gather, 0, "gather")
        assert on_all(four[1:3], call) == [[0, 1, 2, 3]] * 2
        assert first.result() == [0, 1, 2, 3]
    late.join()
    four[0].close()
    error = on_all([four[1]], lambda r: r.barrier())[0]
    assert str(error) == "rank 1 of 4, barrier: rank 0 closed without calling it"
    assert four[1].left == [0]
    assert four[1].failure is None


def test_rank_0_ends_after_its_hub_has_answered(four, monkeypatch):
    """Its process may end right after, and the hub's thread with it."""
    answered = []

    def slow(connection, message, body=b""):
        time.sleep(0.02)
        send(connection, message, body)
        answered.append(message["kind"])

    monkeypatch.setattr("longnet.communicator.hub.send", slow)

    def call(r):
        found = r.gather(r.rank, "gather")
        if r.rank == 0:
            r.close()
            return found, answered.count("values")
        return found

    assert on_all(four, call) == [([0, 1, 2, 3], 4)] + [[0, 1, 2, 3]] * 3


def test_late_ranks_are_named_at_the_deadline():
    ranks = connect(4, timeout=1)
    for error in on_all(ranks[:2], lambda r: r.gather(0, "agree")):
        assert str(error).endswith("of 4, agree: waited 1 s for ranks 2, 3")
    for rank in ranks:
        rank.close()
    assert "closed" in str(on_all(ranks[:1], lambda r: r.barrier())[0])


def test_strangers_are_turned_away():
    hub = Hub(2, ("127.0.0.1", 0), "job")
    found = on_all(
        [
            lambda: Rendezvous.connect(0, 2, [hub.address], TIMEOUT, "job", hub),
            lambda: socket.create_connection(hub.address).sendall(b"GET / HTTP/1.1\r\n\r\n" * 9),
            lambda: Rendezvous.connect(1, 2, [hub.address], 0.3, "another job"),
            lambda: Rendezvous.connect(1, 3, [hub.address], TIMEOUT, "job"),
        ],
        lambda call: call(),
    )
    assert "what answers is not this job's rank 0" in str(found[2])
    assert "found a rank 1 of 3, expected each of 2 ranks once" in str(found[3])
    second = Rendezvous.connect(1, 2, [hub.address], TIMEOUT, "job")
    ranks = [found[0], second]
    assert on_all(ranks, lambda r: r.gather(r.rank, "gather")) == [[0, 1]] * 2
    for rank in ranks:
        rank.close()


def test_nobody_listens():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
        with pytest.raises(
            CommunicatorError, match=r"rank 0 of 2.*cannot listen on port \d+: Addr"
        ):
            Rendezvous.connect(0, 2, [address], 1, "job")
    with pytest.raises(
        CommunicatorError, match=rf"waited 0\.2\d* s for rank 0 at 127.*{address[1]}: C"
    ):
        Rendezvous.connect(1, 2, [address], 0.2, "job")
