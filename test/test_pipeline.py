"""One item is made while the one before is being used: order, bounds and errors."""

import threading

import pytest

from depth_pose_ros.pipeline import one_ahead

PATIENCE = 60.0


def test_the_next_item_is_made_while_one_is_used_and_none_beyond():
    begun = []
    made = [threading.Event() for _ in range(6)]
    threads = set()

    def items():
        for i in range(5):
            begun.append(i)
            threads.add(threading.current_thread().name)
            yield i
            made[i].set()  # the next one is asked for

    used = []
    for item in one_ahead(items(), "maker"):
        if item < 4:
            while item + 1 not in begun:  # although this one is still being used
                assert made[item].wait(PATIENCE)
        assert begun == list(range(min(item + 2, 5)))
        used.append(item)
    assert used == [0, 1, 2, 3, 4]
    assert threads == {"maker_0"}


def test_an_error_comes_where_its_item_would_have():
    def items():
        yield 1
        yield 2
        raise RuntimeError("no third")

    used = []
    with pytest.raises(RuntimeError, match="no third"):
        used.extend(one_ahead(items()))
    assert used == [1, 2]


def test_whoever_stops_early_does_not_wait_for_an_item_that_never_comes():
    closed = threading.Event()

    def items():
        yield 1
        closed.wait(PATIENCE)

    with pytest.raises(RuntimeError, match="of the user"):
        for _ in one_ahead(items(), "waiting"):
            raise RuntimeError("of the user")
    waiting = [thread for thread in threading.enumerate() if thread.name.startswith("waiting")]
    assert not closed.is_set() and len(waiting) == 1
    closed.set()
    waiting[0].join(PATIENCE)
    assert not waiting[0].is_alive()


def test_no_items():
    assert list(one_ahead([])) == []
