"""Work in threads: in order, with the errors it meets, and BLAS as it was before."""

import threading
import time

import numpy as np
import pytest

from minipt.prompting import threads as threads_module
from minipt.prompting.threads import Pace, blas_libraries, blas_threads, in_threads, thread_count


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

    with blas_threads(threads):
        results = in_threads(work, range(7))
    assert [item for item, *_ in results] == list(range(7))
    assert {one for _, seen, _ in results for one in seen} == {1}
    assert len({thread for *_, thread in results}) <= threads


def test_blas_is_as_before_also_after_an_error():
    before = counts()
    with pytest.raises(ZeroDivisionError), blas_threads(3):
        assert set(counts()) == {3} and thread_count() == 3
        with blas_threads(2), blas_threads(5), blas_threads(None):
            assert set(counts()) == {2}
        assert set(counts()) == {3}
        in_threads(lambda x: 1 / x, [1, 0, 1])
    assert counts() == before


def test_several_that_ask_at_once_leave_nothing_behind():
    """OpenBLAS heeds some numbers of the main thread only, so no number is looked at here."""

    def ask(n: int) -> None:
        for _ in range(50):
            with blas_threads(1 + n % 3):
                assert 1 + n % 3 in blas_threads.asked

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert blas_threads.asked == []


def test_what_has_not_begun_at_an_error_is_left():
    done = []

    def work(item: int) -> None:
        if item == 0:
            raise KeyboardInterrupt
        time.sleep(0.05)
        done.append(item)

    with blas_threads(2), pytest.raises(KeyboardInterrupt):
        in_threads(work, range(50))
    assert len(done) < 10


def test_numpys_treatment_of_errors_reaches_the_threads():
    with np.errstate(over="raise"), blas_threads(2), pytest.raises(FloatingPointError):
        in_threads(lambda x: np.exp(x), [np.float32(1e4)] * 2)


def paces(seconds_of: dict[int, float], works: int, pace: Pace, clock: list[float]) -> list[int]:
    """The numbers of BLAS threads that some pieces of work got, each of which takes so long."""
    chosen = []
    for _ in range(works):
        with pace(1):
            chosen.append(min(thread_count(), 2))
            clock[0] += seconds_of[chosen[-1]]
    return chosen


def test_the_pace_follows_the_machine(monkeypatch):
    clock, pace = [0.0], Pace()
    monkeypatch.setattr(threads_module.time, "perf_counter", lambda: clock[0])
    with blas_threads(2):
        quiet = paces({1: 3.0, 2: 2.0}, 100, pace, clock)
        assert sorted(quiet[:6]) == [1, 1, 1, 2, 2, 2]  # three tries of each
        assert quiet[6:].count(1) == 3  # then a try of the slower one every 30
        busy = paces({1: 3.0, 2: 8.0}, 100, pace, clock)
        assert busy[3:].count(2) <= 5
        assert paces({1: 3.0, 2: 2.0}, 100, pace, clock)[60:].count(2) >= 38


def test_with_one_thread_there_is_nothing_to_choose():
    pace = Pace()
    with blas_threads(1):
        for _ in range(10):
            with pace(5):
                assert thread_count() == 1
