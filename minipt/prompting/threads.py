"""Work in threads of one process, on all cores.

In: a function, and what to call it with. Out: the results, in order. NumPy and BLAS release the
interpreter's lock while they compute, so threads compute at the same time, over one copy of the
base. Each then uses one thread of BLAS: several would wait for each other by spinning, which takes
the cores from whatever else runs.
"""

import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from functools import cache
from typing import TypeVar

from threadpoolctl import LibController, ThreadpoolController

TRIES, TRY_AFTER = 3, 20
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
    at the same time. OpenBLAS heeds it of the main thread; of another one it may not, which costs
    time and changes no bit.
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


class Pace:
    """A context for work that is done again and again: one thread of BLAS, or all there are.

    It takes what was faster lately, and now and then it tries the other; the bits are the same. On
    two cores and beside a busy process, 60 steps on the toy task take 7.8 s with two threads and
    3.6 s with one; where the machine is quiet they take 3.1 and 3.5 s.
    """

    def __init__(self) -> None:
        self.seconds: dict[int, deque[float]] = {}  # of a unit of work, by the number of threads
        self.works = 0  # since the slower number was tried

    @contextmanager
    def __call__(self, size: int) -> Iterator[None]:
        """size: how large this piece of work is, in any unit."""
        count, began = self._choose(), time.perf_counter()
        with blas_threads(count):
            yield
        self.seconds[count].append((time.perf_counter() - began) / size)

    def _choose(self) -> int:
        counts = {1, thread_count()}
        for count in counts:
            if len(self.seconds.setdefault(count, deque(maxlen=TRIES))) < TRIES:
                return count
        # The least of the last: whatever disturbs one piece of work only makes it longer.
        seconds = {count: min(self.seconds[count]) for count in counts}
        faster, slower = min(counts, key=seconds.get), max(counts, key=seconds.get)
        self.works += 1
        # A try that takes r times as long, every 20 r times, costs at most a twentieth.
        if self.works * seconds[faster] < TRY_AFTER * seconds[slower]:
            return faster
        self.works = 0
        return slower


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
