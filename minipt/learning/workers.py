"""A step by several processes: each takes a share of the texts, and all read one frozen base.

In: a base, and in each step a prompt and a batch. Out: the batch's loss and the prompt's gradients,
put together from those of its shares. The loss is a mean over N answers, share k has N_k of them:

    loss = Σ_k N_k / N loss_k,    so    gradient = Σ_k N_k / N gradient_k

To train a whole model this way, every process has to send all of its gradient in every step. Here
the base does not change: it lies in memory once, for all to read. In a step P·C numbers and the
batch's token ids go out, and P·C numbers come back. Shares add up a sum in another order, so that
another number of processes gives other last bits; the same number gives the same bits, on one kind
of processor.
"""

import multiprocessing
import os
import signal
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from minipt.errors import MiniptError
from minipt.learning.memory import keep_freed_memory
from minipt.learning.optimizers import Arrays
from minipt.prompting.prompt import SoftPrompt
from minipt.prompting.text import Batch
from minipt.prompting.wiring import prompt_step
from minipt.transformer.base import Base

# A fork would copy a BLAS library in the middle of whatever its threads were doing.
SPAWN = multiprocessing.get_context("spawn")
# BLAS libraries read these variables when they are loaded, to know how many threads to use.
THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
# Mapped files are in memory once. Windows deletes no mapped file, so each process reads a copy.
MAPPED = "r" if os.name == "posix" else None


class Workers:
    """A context in which `count` processes read the base; they end with it.

    Each uses its share of the processor's cores, or what a variable of `THREADS` says.

    Raises MiniptError when a process cannot be started or has died, and when the system's temporary
    files, through which the base is passed on, have no room for it.
    """

    def __init__(self, base: Base, count: int) -> None:
        self.base, self.count = base, count
        self.processes: list[_Process] = []

    def __enter__(self) -> "Workers":
        with self._ended_by_errors():
            with _environment(max(1, _cores() // self.count)):
                for _ in range(self.count):
                    self.processes.append(_Process())
            for process in self.processes:
                process.arrived = process.receive()
            with _files(self.base.params) as paths:
                for k, process in enumerate(self.processes):
                    process.send((k, self.count, self.base.name, self.base.config, paths))
                for process in self.processes:
                    process.receive()  # it has read them
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.end()
        self.processes.clear()

    def prompt_step(self, prompt: SoftPrompt, batch: Batch) -> tuple[float, Arrays]:
        """As the function of this name, equal to rounding."""
        if not self.processes:
            raise MiniptError("these workers have ended: begin with others")
        with self._ended_by_errors():
            busy = self.processes[: len(batch.ids)]  # each has a text, where there are few
            for process in busy:
                process.send((prompt, batch))
            results = [process.receive() for process in busy]
        for result in results:
            if isinstance(result, Exception):
                raise result
        losses, parts = zip(*(result for result in results if result is not None), strict=True)
        return sum(losses), {name: sum(part[name] for part in parts) for name in parts[0]}

    @contextmanager
    def _ended_by_errors(self) -> Iterator[None]:
        """No process is left with an answer that nobody has read."""
        try:
            yield
        except BaseException:
            self.__exit__()
            raise


def share(batch: Batch, k: int, count: int) -> Batch:
    """Every `count`-th text from the k-th on, so that long and short ones come to all."""
    texts = len(batch.ids) if batch.labels is None else len(batch.labels)
    rows = np.arange(len(batch.ids)).reshape(texts, -1)[k::count].ravel()  # with labels, K a text
    names = ("ids", "lengths", "targets", "positions")
    arrays = {name: getattr(batch, name) for name in names if getattr(batch, name) is not None}
    labels = None if batch.labels is None else batch.labels[k::count]
    return replace(batch, **{name: array[rows] for name, array in arrays.items()}, labels=labels)


class _Process:
    """One process, and this end of the pipe to it. arrived: it has begun to serve."""

    def __init__(self) -> None:
        self.pipe, far_end = SPAWN.Pipe()
        self.process = SPAWN.Process(target=_serve, args=(far_end,), daemon=True)
        self.arrived = False
        try:
            self.process.start()
        except OSError as error:
            raise MiniptError(
                f"a worker could not be started ({error.strerror}): use fewer"
            ) from error
        far_end.close()  # only the process holds it, so that its death is noticed here

    def send(self, what: object) -> None:
        with suppress(ConnectionError):  # it has died, which `receive` says
            self.pipe.send(what)

    def receive(self) -> object:
        try:
            return self.pipe.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            advice = "each needs memory of its own: use fewer where it is short"
            if not self.arrived:
                advice = "a script that learns with workers begins its work under `if __name__ == "
                advice += '"__main__":`, since each worker reads the script too'
            code = self.process.exitcode
            raise MiniptError(f"a worker ended with exit code {code}; {advice}") from None

    def end(self) -> None:
        self.pipe.close()
        self.process.terminate()
        self.process.join()


def _serve(pipe: Connection) -> None:
    """In the process: receive the base, then take each step that is asked for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # at Ctrl-C the parent ends its workers
    keep_freed_memory()
    with suppress(EOFError, ConnectionError):  # the parent is gone
        pipe.send(True)  # arrived
        k, count, name, config, paths = pipe.recv()
        params = {key: np.asarray(np.load(path, MAPPED)) for key, path in paths.items()}
        base = Base(name, config, params, tokenizer=None)
        pipe.send(True)  # the files have been read
        while True:
            prompt, batch = pipe.recv()
            pipe.send(_result(base, prompt, batch, k, count))


def _result(
    base: Base, prompt: SoftPrompt, batch: Batch, k: int, count: int
) -> tuple[float, Arrays] | Exception | None:
    """What share k adds to the batch's loss and gradients; None: it has no answer."""
    try:
        part = share(batch, k, count)
        if len(batch.right_choices) and not len(part.right_choices):
            return None
        loss, gradients = prompt_step(base, prompt, part)
    except Exception as error:  # whatever it is, the parent raises it
        error.add_note(traceback.format_exc())  # the traceback itself cannot be sent
        return error
    weight = len(part.right_choices) / len(batch.right_choices)
    return weight * loss, {name: weight * gradient for name, gradient in gradients.items()}


@contextmanager
def _files(params: Arrays) -> Iterator[dict[str, Path]]:
    """The arrays as files, which are deleted with the block; what is mapped then stays so."""
    with ExitStack() as stack:
        try:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="minipt-"))
            paths = {name: Path(directory) / f"{name}.npy" for name in params}
            for name, path in paths.items():
                np.save(path, params[name])
        except OSError as error:
            raise MiniptError(
                f"there is no room for the workers' base among the temporary files ({error}): make "
                "some, or name another directory in TMPDIR, or use one worker"
            ) from error
        yield paths


def _cores() -> int:
    """Those that this process may use, where the system says it."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _environment(threads: int) -> Iterator[None]:
    """What is set for processes that are started meanwhile, unless it is set already.

    Each uses so many threads. None imports a file of the working directory in place of a module of
    Python's, such as signal.py.
    """
    wanted = dict.fromkeys(THREADS, str(threads)) | {"PYTHONSAFEPATH": "1"}
    unset = {name: value for name, value in wanted.items() if name not in os.environ}
    os.environ.update(unset)
    try:
        yield
    finally:
        for name in unset:
            del os.environ[name]
