"""Work in threads: in order, with the errors it meets, and BLAS as it was before."""

import os
import signal
import threading
import time

import numpy as np
import pytest

from minipt.maths import threads as threads_module
from minipt.maths.threads import (
    at_most_threads,
    blas_libraries,
    in_threads,
    is_shared_out,
    one_blas_thread,
    thread_count,
)


def counts() -> list[int]:
    return [library.num_threads for library in blas_libraries()]


def test_this_machines_blas_can_be_set():
    assert counts()


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_results_come_in_order_from_several_threads_with_one_of_blas_each(threads: int):
    barrier = threading.Barrier(threads)

    def work(item: int) -> tuple:
        if item < threads:
            barrier.wait(5)  # only if so many work at the same time
        return item, set(counts()), threading.get_ident()

    with at_most_threads(threads):
        results = in_threads(work, range(7))
    assert [item for item, *_ in results] == list(range(7))
    assert {one for _, seen, _ in results for one in seen} == {1}
    assert len({thread for *_, thread in results}) <= threads


def test_blas_is_as_before_also_after_an_error():
    before = counts()
    with pytest.raises(ZeroDivisionError), at_most_threads(3):
        assert set(counts()) == {3} and thread_count() == 3
        with at_most_threads(2), at_most_threads(5):
            assert set(counts()) == {2}
        assert set(counts()) == {3}
        in_threads(lambda x: 1 / x, [1, 0, 1])
    assert counts() == before


def test_several_that_ask_at_once_leave_nothing_behind():
    """OpenBLAS heeds some numbers of the main thread only, so no number is looked at here."""

    def ask(n: int) -> None:
        for _ in range(50):
            with at_most_threads(1 + n % 3):
                assert 1 + n % 3 in threads_module.threads.asked

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert threads_module.threads.asked == []


def test_what_has_not_begun_at_an_error_is_left():
    done = []

    def work(item: int) -> None:
        if item == 0:
            raise KeyboardInterrupt
        time.sleep(0.05)
        done.append(item)

    with at_most_threads(2), pytest.raises(KeyboardInterrupt):
        in_threads(work, range(50))
    assert len(done) < 10


def test_work_that_is_shared_out_shares_nothing_out():
    def outer(item: int) -> list[tuple]:
        return in_threads(lambda k: (is_shared_out(), threading.get_ident()), range(4))

    for threads in (1, 3):
        with at_most_threads(threads):
            for inner in in_threads(outer, range(2)):
                assert len({thread for _, thread in inner}) == 1
                assert all(shared for shared, _ in inner)
            assert in_threads(lambda k: is_shared_out(), [0]) == [False]
    assert not is_shared_out()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_process_starts_threads_of_its_own():
    with at_most_threads(3):
        in_threads(lambda k: time.sleep(0.01), range(3))
        child = os.fork()
        if not child:
            signal.alarm(20)
            os._exit(7 if in_threads(lambda k: k + 1, range(3)) == [1, 2, 3] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_numpys_treatment_of_errors_reaches_the_threads():
    with np.errstate(over="raise"), at_most_threads(2), pytest.raises(FloatingPointError):
        in_threads(lambda x: np.exp(x), [np.float32(1e4)] * 2)


def test_one_thread_of_blas_leaves_the_others_to_work():
    before = counts()
    with at_most_threads(3), one_blas_thread():
        assert set(counts()) == {1} and thread_count() == 3
        with at_most_threads(2):
            assert set(counts()) == {1} and thread_count() == 2
    assert counts() == before
