"""Work in threads of one process, on all cores.

In: a function, and what to call it with. Out: the results, in order. NumPy and BLAS release the
interpreter's lock while they compute, so threads compute at the same time, over one copy of the
base. Each then uses one thread of BLAS. Several would wait for each other by spinning, so a busy
neighbour would slow them down threefold; and how they split a product decides its last bits.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
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
    """How many threads work, and how many of them are BLAS's: numbers of the whole process."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.asked: list[int] = []  # by the contexts of `at_most` that are open now
        self.alone: list[int] = []  # a 1 for each context of `one_of_blas` that is open now
        self.before: list[int] = []  # each library's number before the first context was opened
        self.told: list[int] = []  # each library's number now

    @contextmanager
    def at_most(self, count: int) -> Iterator[None]:
        """A context in which so many threads work; inside another one, the fewer of the two."""
        with self._open(self.asked, count):
            yield

    @contextmanager
    def one_of_blas(self) -> Iterator[None]:
        """A context in which a matrix product is computed by one thread.

        Several of them may split a product so that its last bits are others.
        """
        with self._open(self.alone, 1):
            yield

    def count(self) -> int:
        """How many threads to work with: as many as BLAS has, one for each core of this process.

        A variable such as OPENBLAS_NUM_THREADS sets it before the start, `at_most` for a while.
        """
        with self.lock:
            own = self.before if self.asked or self.alone else _numbers()
            return min(self.asked, default=min(own, default=_cores()))

    @contextmanager
    def _open(self, numbers: list[int], number: int) -> Iterator[None]:
        with self.lock:
            if not (self.asked or self.alone):
                self.before = self.told = _numbers()
            numbers.append(number)
            self._tell_blas()
        try:
            yield
        finally:
            with self.lock:
                numbers.remove(number)
                self._tell_blas()

    def _tell_blas(self) -> None:
        wanted = [min([*self.asked, *self.alone], default=before) for before in self.before]
        if wanted != self.told:
            for library, number in zip(blas_libraries(), wanted, strict=True):
                _forget_who_set(library)
                library.set_num_threads(number)
                _forget_who_set(library)
            self.told = wanted


threads = _Threads()
at_most_threads, one_blas_thread, thread_count = threads.at_most, threads.one_of_blas, threads.count

_is_shared_out: ContextVar[bool] = ContextVar("is_shared_out", default=False)


def is_shared_out() -> bool:
    """Whether this code works on one of several items of `in_threads`, however many threads do."""
    return _is_shared_out.get()


def in_threads(work: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """work(item) for each item, in order of the items; each with one thread of BLAS.

    Inside `work`, another `in_threads` uses no further threads. If an item raises, or at Ctrl-C, no
    further item begins, and those that have begun end. Then the error is raised. If several items
    raise, it is the error of the first of them in order.
    """
    count = 1 if is_shared_out() else min(thread_count(), len(items))
    left, results, errors = iter([*enumerate(items)]), [None] * len(items), {}
    helpers = []

    def work_off() -> None:
        _is_shared_out.set(is_shared_out() or len(items) > 1)
        for k, item in left:
            try:
                results[k] = work(item)
            except BaseException as error:
                errors[k] = error
                _exhaust(left)

    with one_blas_thread():
        try:
            with suppress(RuntimeError):  # no thread can start, as at the interpreter's end
                for _ in range(count - 1):
                    # np.errstate belongs to a context, and a pool's thread has one of its own.
                    helpers.append(_pool().submit(copy_context().run, work_off))
            copy_context().run(work_off)
        finally:
            _exhaust(left)
            wait([helper for helper in helpers if not helper.cancel()])
    if errors:
        raise errors[min(errors)]
    return results


def _exhaust(left: Iterator) -> None:
    """Take all that is left, so that no thread begins it."""
    deque(left, maxlen=0)


@cache
def _pool() -> ThreadPoolExecutor:
    """Threads that wait for work, so that a step need not start its own."""
    return ThreadPoolExecutor(initializer=_one_of_blas_here)


def _one_of_blas_here() -> None:
    """Some libraries keep a number for each thread, and a new thread begins with all cores."""
    for library in blas_libraries():
        if library.internal_api == "mkl" or getattr(library, "threading_layer", "") == "openmp":
            library.set_num_threads(1)


if hasattr(os, "register_at_fork"):  # a child process has no threads but the one that made it
    os.register_at_fork(after_in_child=_pool.cache_clear)


def _forget_who_set(library: LibController) -> None:
    """threadpoolctl heeds only the first thread that sets OpenBLAS. Here the lock says who may."""
    if hasattr(library, "clear_controlling_thread"):  # from 3.8 on
        library.clear_controlling_thread(force=True)


def _numbers() -> list[int]:
    return [library.num_threads for library in blas_libraries()]


def _cores() -> int:
    """Those that this process may use, where the system says it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
