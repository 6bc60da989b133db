"""Work in threads of one process, on all cores.

In: a function, and what to call it with. Out: the results, in order. NumPy and BLAS release the
interpreter's lock while they compute, so threads compute at the same time, over one copy of the
base. Each then uses one thread of BLAS. Several would wait for each other by spinning, so a busy
neighbour would slow them down threefold; and how they split a product decides its last bits.
"""

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from typing import TypeVar

from threadpoolctl import LibController, ThreadpoolController

Item = TypeVar("Item")
Result = TypeVar("Result")


@cache
def blas_libraries() -> list[LibController]:
    """The BLAS libraries of this process whose number of threads can be set."""
    return ThreadpoolController().select(user_api="blas").lib_controllers


class _Threads:
    """How many threads work, and how many of them are BLAS's: numbers of the whole process.

    OpenBLAS heeds its number from the main thread. From another one it may not: then a step takes
    longer, and its last bits may be those of several threads.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked: list[int] = []  # by the contexts of `at_most` that are open now
        self.alone = 0  # the contexts of `one_of_blas` that are open now
        self.before: list[int] = []  # of each library, when none was open

    @contextmanager
    def at_most(self, count: int | None) -> Iterator[None]:
        """A context in which so many threads work; inside another one, the fewer of the two.

        None asks for nothing.
        """
        with self._changed(lambda: self.asked.append(count), lambda: self.asked.remove(count)):
            yield

    @contextmanager
    def one_of_blas(self) -> Iterator[None]:
        """A context in which a matrix product is computed by one thread.

        Several of them may split a product so that its last bits are others.
        """
        with self._changed(lambda: self._open(1), lambda: self._open(-1)):
            yield

    def count(self) -> int:
        """How many threads to work with: as many as BLAS has, one for each core of this process.

        A variable such as OPENBLAS_NUM_THREADS sets it before the start, `at_most` for a while.
        """
        own = [library.num_threads for library in blas_libraries()]
        counts = self.before if self.asked or self.alone else own
        return min((n for n in self.asked if n), default=min(counts, default=_cores()))

    def _open(self, change: int) -> None:
        self.alone += change

    @contextmanager
    def _changed(self, begin: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
        with self.lock:
            if not (self.asked or self.alone):
                self.before = [library.num_threads for library in blas_libraries()]
            begin()
            self._set()
        try:
            yield
        finally:
            with self.lock:
                end()
                self._set()

    def _set(self) -> None:
        for library, before in zip(blas_libraries(), self.before, strict=True):
            asked = min((n for n in self.asked if n), default=before)
            library.set_num_threads(1 if self.alone else asked)


threads = _Threads()
blas_threads, one_blas_thread, thread_count = threads.at_most, threads.one_of_blas, threads.count


def in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """work(item) for each item, in order of the items; each with one thread of BLAS.

    The first error is raised. At an error or at Ctrl-C, items that have not begun are left.
    """
    count = min(thread_count(), len(items))
    with one_blas_thread():
        if count <= 1:
            return [work(item) for item in items]
        with ThreadPoolExecutor(count) as pool:
            # np.errstate belongs to a context, and a new thread has an empty one.
            results = [pool.submit(copy_context().run, work, item) for item in items]
            try:
                return [result.result() for result in results]
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _cores() -> int:
    """Those that this process may use, where the system says it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
