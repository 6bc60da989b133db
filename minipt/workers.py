"""A step by several processes: each takes a share of the texts, and only the prompt travels.

In: a base, and in each step a prompt and a batch. Out: the batch's loss and the prompt's gradients,
put together from those of its shares. The loss is a mean over N answers, share k has N_k of them:

    loss = Σ_k N_k / N loss_k,    so    gradient = Σ_k N_k / N gradient_k

Whoever trains a whole model this way has to send all of its gradient from every process in every
step. In front of a frozen base, P·C numbers go out and P·C come back. The base is sent once, and
each process holds it. What is added up in shares is added in another order, so that another number
of processes gives other last bits; the same number gives the same. The story continues in
`tune.py`.
"""

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Self

from minipt.base import Base
from minipt.errors import MiniptError
from minipt.learn import Arrays, keep_freed_memory
from minipt.prompt import SoftPrompt
from minipt.text import Batch
from minipt.trace import add_gradient
from minipt.wiring import loss_and_gradient

# A fork would copy a BLAS library in the middle of whatever its threads were doing.
SPAWN = multiprocessing.get_context("spawn")
# What BLAS libraries read, when they are loaded, to know how many threads to use.
THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")


def prompt_step(base: Base, prompt: SoftPrompt, batch: Batch) -> tuple[float, Arrays]:
    """The mean cross-entropy of a batch, and its gradient for each of the prompt's arrays."""
    wanted = {} if prompt.head is None else {"choices": None}
    loss, gradient = loss_and_gradient(base, prompt, batch, gradients=wanted)
    of_head = {"head": wanted["choices"]} if wanted else {}
    return loss, {"prompt": gradient} | of_head


class Workers:
    """Processes that each hold a base, until the context ends that these are.

    >>> with Workers(base, 2) as workers:
    ...     loss, gradients = workers.prompt_step(prompt, batch)

    Raises MiniptError when a process has died.
    """

    def __init__(self, base: Base, count: int) -> None:
        self.base, self.count, self.workers = base, count, []

    def __enter__(self) -> Self:
        threads = max(1, (os.cpu_count() or 1) // self.count)
        try:
            with _environment(dict.fromkeys(THREADS, str(threads))):
                for _ in range(self.count):
                    self.workers.append(_Worker())
            for worker in self.workers:
                worker.send((self.base.name, self.base.config, self.base.params))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self.workers:
            worker.end()

    def prompt_step(self, prompt: SoftPrompt, batch: Batch) -> tuple[float, Arrays]:
        """As the function of this name, equal to rounding."""
        parts = shares(batch, self.count)
        for worker, part in zip(self.workers, parts, strict=False):
            worker.send((prompt, part))
        found = [worker.receive() for worker, _ in zip(self.workers, parts, strict=False)]
        loss, gradients, N = 0.0, dict.fromkeys(prompt.arrays()), len(batch.answers)
        for part, of_part in zip(parts, found, strict=True):
            if isinstance(of_part, Exception):
                raise of_part
            share = len(part.answers) / N
            loss += share * of_part[0]
            for name, gradient in of_part[1].items():
                add_gradient(gradients, name, share * gradient)
        return loss, gradients


def shares(batch: Batch, count: int) -> list[Batch]:
    """The texts dealt out in turn, so that long and short ones come to all; of few, some get none.

    choices stay as they are.
    """
    parts = []
    for k in range(min(count, len(batch.ids))):
        names = ("ids", "lengths", "targets", "positions")
        arrays = {name: getattr(batch, name) for name in names}
        mine = {name: array[k::count] for name, array in arrays.items() if array is not None}
        parts.append(replace(batch, **mine))
    return parts


class _Worker:
    """One process, and this end of the pipe to it."""

    def __init__(self) -> None:
        self.pipe, far_end = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_serve, args=(far_end,), daemon=True)
        self.process.start()
        far_end.close()  # only the process holds it, so that its death is noticed here

    def send(self, what: object) -> None:
        with self._noticing_death():
            self.pipe.send(what)

    def receive(self) -> tuple[float, Arrays] | Exception:
        with self._noticing_death():
            return self.pipe.recv()

    def end(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join()

    @contextmanager
    def _noticing_death(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError):
            self.process.join()
            code = self.process.exitcode
            advice = "each holds a copy of the base: use fewer where memory is short"
            if code == 1:  # it did not get as far as `_serve`
                advice = "a script that learns with workers begins its work under `if __name__ == "
                advice += '"__main__":`, since each worker reads the script too'
            raise MiniptError(f"a worker ended with exit code {code}; {advice}") from None


def _serve(pipe: Connection) -> None:
    """In the process: receive the base, then take each step that is asked for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # at Ctrl-C the parent ends its workers
    keep_freed_memory()
    try:
        base = Base(*pipe.recv(), tokenizer=None)
        while True:
            prompt, batch = pipe.recv()
            pipe.send(_found(base, prompt, batch))
    except (EOFError, ConnectionError):  # the parent is gone
        return


def _found(base: Base, prompt: SoftPrompt, batch: Batch) -> tuple[float, Arrays] | Exception:
    try:
        return prompt_step(base, prompt, batch)
    except Exception as error:  # whatever it is, the parent raises it
        return error


@contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """What processes that are started meanwhile inherit."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
