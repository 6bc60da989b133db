"""Work in threads of one process, on all cores.

In: a function, and what to call it with. Out: the results, in order. NumPy and BLAS release the
interpreter's lock while they compute, so threads compute at the same time, over one copy of the
base. Each then uses one thread of BLAS: several would wait for each other by spinning, which takes
the cores from whatever else runs.
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


def thread_count() -> int:
    """How many threads to work with: as many as BLAS has, one for each core of this process.

    A variable such as OPENBLAS_NUM_THREADS sets it before the start, `blas_threads` for a while.
    """
    counts = [library.num_threads for library in blas_libraries()]
    return min(counts) if counts else _cores()


class _BlasThreads:
    """A context in which BLAS uses so many threads; inside another one, the fewer of the two.

    None asks for nothing. The process has one such number, also where several threads ask for one
    at the same time.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked: list[int] = []  # by the contexts that are open now
        self.before: list[int] = []  # of each library, when none was open

    @contextmanager
    def __call__(self, count: int | None) -> Iterator[None]:
        if count is None:
            yield
            return
        with self.lock:
            if not self.asked:
                self.before = [library.num_threads for library in blas_libraries()]
            self.asked.append(count)
            self._set()
        try:
            yield
        finally:
            with self.lock:
                self.asked.remove(count)
                self._set()

    def _set(self) -> None:
        for library, before in zip(blas_libraries(), self.before, strict=True):
            library.set_num_threads(min(self.asked, default=before))


blas_threads = _BlasThreads()


def in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """work(item) for each item, in order of the items; each with one thread of BLAS.

    The first error is raised. At an error or at Ctrl-C, items that have not begun are left.
    """
    count = min(thread_count(), len(items))
    with blas_threads(1):
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
