"""Work in threads: in order, with the errors it meets, and BLAS as it was before."""

import os
import signal
import subprocess
import sys
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
    before = counts()

    def ask(n: int) -> None:
        for _ in range(50):
            with at_most_threads(1 + n % 3):
                assert max(counts()) <= 1 + n % 3

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert threads_module.threads.asked == []
    assert counts() == before


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
    barrier = threading.Barrier(2)

    def treatment(_: int) -> str:
        barrier.wait(5)  # so that two threads work
        return np.geterr()["over"]

    with np.errstate(over="raise"), at_most_threads(2):
        assert in_threads(treatment, range(2)) == ["raise"] * 2


def test_of_several_errors_the_first_in_order_is_raised():
    barrier = threading.Barrier(2)

    def work(item: int) -> None:
        barrier.wait(5)
        time.sleep(0.1 * (item == 0))  # the second is raised sooner
        raise ValueError(f"item {item}")

    with at_most_threads(2), pytest.raises(ValueError, match="item 0"):
        in_threads(work, range(2))


def test_a_number_is_put_back_by_whichever_thread_leaves_last():
    before, entered, left = counts(), threading.Event(), threading.Event()

    def stay() -> None:
        with one_blas_thread():
            entered.set()
            left.wait(5)

    other = threading.Thread(target=stay)
    with at_most_threads(3), one_blas_thread():
        other.start()
        entered.wait(5)
    assert set(counts()) == {1}  # the other thread still needs it
    left.set()
    other.join()
    assert counts() == before


def test_work_is_done_where_blas_cannot_be_set(monkeypatch):
    monkeypatch.setattr(threads_module, "blas_libraries", list)  # as with Accelerate on macOS
    assert in_threads(lambda k: k + 1, range(4)) == [1, 2, 3, 4]
    with at_most_threads(2):
        assert thread_count() == 2
        assert in_threads(lambda k: k + 1, range(4)) == [1, 2, 3, 4]


AT_THE_END = """
import threading, time
from minipt.maths.threads import at_most_threads, in_threads

def work():
    threading.main_thread().join()
    with at_most_threads(2):
        print(in_threads(lambda k: k + 1, range(3)))

threading.Thread(target=work).start()
"""


def test_work_that_goes_on_at_the_interpreters_end_is_done():
    command = [sys.executable, "-c", AT_THE_END]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[1, 2, 3]\n"


def test_one_thread_of_blas_leaves_the_others_to_work():
    before = counts()
    with at_most_threads(3), one_blas_thread():
        assert set(counts()) == {1} and thread_count() == 3
        with at_most_threads(2):
            assert set(counts()) == {1} and thread_count() == 2
    assert counts() == before
