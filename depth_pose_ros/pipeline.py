"""Make the next item while the last one is being used."""

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

END = object()


def one_ahead(items: Iterable[T], thread: str = "ahead") -> Iterator[T]:
    """The items in their order, each made in another thread while the one before is being used.

    At most one item waits, and none is begun before the one before it was taken. What making an item raises comes out
    where the item would have. Whoever stops early leaves that thread behind with the item that it is making.

    thread: name of the thread.
    """
    iterator = iter(items)
    pool = ThreadPoolExecutor(1, thread)
    try:
        made = pool.submit(next, iterator, END)
        while (item := made.result()) is not END:
            made = pool.submit(next, iterator, END)
            yield item
    finally:
        pool.shutdown(wait=False)  # not to wait for an item that may never come, with an error to be told
