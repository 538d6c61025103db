"""Workers and batches: any `concurrent.futures.Executor`, a pool of processes by default.

What a worker computes does not depend on who else works, in which order, or how designs are gathered into batches, so
neither do a study's results. A worker that dies takes only its batches with it: they are tried again, each alone, then
design by design, until the one that kills its worker is known and recorded.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from .explore_evaluate import Absent, Outcome, Task, evaluate_batch, install
from .ir.errors import ArchError, ReportError, TilewrightError

__all__ = ["BATCH_SECONDS", "Crew", "cluster_executor", "default_jobs"]

BATCH_SECONDS = 1.0
"""Work in a batch, about: some milliseconds of sending and storing are below 1 % of it, and no more is lost with a
worker."""
FIRST_BATCH, LARGEST_BATCH = 4, 1000
TRIES = 3
"""Of a batch, before its designs go alone; of a design alone, before it is recorded as the one that fails."""

PATIENCE_SECONDS = 300.0
"""Without any answer of the own pool, before its workers count as hung; a design takes seconds."""

Blobs = Callable[[Iterable[str]], dict[str, bytes]]


def default_jobs() -> int:
    """Processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(slots=True)
class _Batch:
    tasks: tuple[Task, ...]
    tries: int = 0
    laden: bool = False
    """Sent with its networks."""


class Crew:
    """Who evaluates: this process, a pool of processes, or somebody's executor.

    Parameters
    ----------
    jobs : int
        Processes of the own pool; 0: this process.
    executor : Executor, optional
        Used as it is, and left open.
    blobs : callable
        Networks by content, for workers that lack them.
    patience : float
        Seconds without any answer after which the own pool's workers are ended as if they had died.
    """

    def __init__(
        self,
        *,
        jobs: int = 1,
        executor: Executor | None = None,
        blobs: Blobs,
        patience: float = PATIENCE_SECONDS,
    ) -> None:
        if jobs < 0:
            raise ArchError(f"--jobs {jobs}: want 0 (this process) or more")
        if executor is None and jobs and _is_worker():
            raise ArchError(
                "explore() was called again inside its own worker: the script runs it at its top level. Put the call under "
                '`if __name__ == "__main__":`, or give jobs=0'
            )
        self._own = executor is None
        self._jobs = jobs
        self._executor: Executor | None = executor
        self._blobs = blobs
        self._patience = patience if executor is None and jobs else None
        self._why = "its worker process died"
        self._sent: dict[str, bytes] = {}
        self._seconds = 0.0
        self.workers = _workers_of(executor) if executor is not None else max(1, jobs)

    def run(self, tasks: Iterable[Task], done: Callable[[tuple[Outcome, ...]], None], *, total: int) -> None:
        """Evaluate tasks; `done` hears of each batch, in the order they end.

        Parameters
        ----------
        total : int
            Number of tasks, so that the last batches are small and workers end together.
        """
        source, left = iter(tasks), total
        again: deque[_Batch] = deque()
        alone: deque[_Batch] = deque()
        flying: dict[Future[Any], _Batch] = {}
        exhausted = False
        while True:
            while not exhausted and not again and len(flying) < 2 * self.workers and not alone:
                batch = self._next(source, left)
                if batch is None:
                    exhausted = True
                    break
                left -= len(batch.tasks)
                self._submit(batch, flying)
            while again and len(flying) < 2 * self.workers and not alone:
                self._submit(again.popleft(), flying)
            if alone and not flying:
                self._submit(alone.popleft(), flying)
            if not flying:
                if exhausted and not again and not alone:
                    return
                continue
            ready, _ = wait(flying, self._patience, FIRST_COMPLETED)
            if not ready:
                self._stop(flying.values())
                continue
            broken: list[_Batch] = []
            for future in sorted(ready, key=lambda f: flying[f].tasks[0].key):
                batch = flying.pop(future)
                try:
                    answer = future.result()
                except BrokenExecutor:
                    broken.append(batch)
                except TilewrightError:
                    raise
                except Exception as error:  # what an executor makes of a lost worker has many names
                    self._failed(batch, error, again, done)
                else:
                    self._answered(batch, answer, again, done)
            if broken:
                broken += flying.values()
                flying.clear()
                self._mend()
                self._suspected(broken, alone, done)

    def close(self, *, at_once: bool = False) -> None:
        """End the own pool; `at_once`: without waiting for what it does."""
        executor, self._executor = (self._executor, None) if self._own else (None, self._executor)
        if executor is None:
            return
        processes = list((getattr(executor, "_processes", None) or {}).values())
        executor.shutdown(wait=not at_once, cancel_futures=True)
        if at_once:
            for process in processes:
                process.terminate()

    # -- batches -------------------------------------------------------------------------------------------------------
    def _next(self, source: Any, left: int) -> _Batch | None:
        size = FIRST_BATCH if not self._seconds else round(BATCH_SECONDS / self._seconds)
        size = min(size, LARGEST_BATCH, -(-left // (2 * self.workers)))
        tasks = []
        for _ in range(max(1, size)):
            task = next(source, None)
            if task is None:
                break
            tasks.append(task)
        return _Batch(tuple(tasks)) if tasks else None

    def _submit(self, batch: _Batch, flying: dict[Future[Any], _Batch]) -> None:
        load = None
        if batch.laden:
            load = self._blobs(dict.fromkeys(d for t in batch.tasks for _, d in t.networks))
        if self._own and not self._jobs:
            future: Future[Any] = Future()
            future.set_result(evaluate_batch(batch.tasks, load))
        else:
            try:
                future = self._pool(batch).submit(evaluate_batch, batch.tasks, load)
            except BrokenExecutor:  # it broke while nothing was looking
                future = Future()
                future.set_exception(BrokenExecutor())
        flying[future] = batch

    def _answered(
        self,
        batch: _Batch,
        answer: tuple[Outcome, ...] | Absent,
        again: deque[_Batch],
        done: Callable[[tuple[Outcome, ...]], None],
    ) -> None:
        if isinstance(answer, Absent):
            batch.laden = True
            again.appendleft(batch)
            return
        mean = sum(o.seconds for o in answer) / len(answer)
        self._seconds = mean if not self._seconds else 0.5 * (mean + self._seconds)
        done(answer)

    def _failed(
        self,
        batch: _Batch,
        error: Exception,
        again: deque[_Batch],
        done: Callable[[tuple[Outcome, ...]], None],
    ) -> None:
        """A batch whose executor gave an exception instead of an answer."""
        batch.tries += 1
        if batch.tries < TRIES:
            again.append(batch)
        elif len(batch.tasks) > 1:
            again += [_Batch((task,)) for task in batch.tasks]
        else:
            done((_lost(batch.tasks[0], f"{type(error).__name__}: {error}", batch.tries),))

    def _suspected(
        self, broken: list[_Batch], alone: deque[_Batch], done: Callable[[tuple[Outcome, ...]], None]
    ) -> None:
        """Batches in flight as a worker died: nobody knows whose it was."""
        for batch in broken:
            batch.tries += 1
            if len(broken) > 1 or batch.tries < TRIES:
                alone.append(batch)
            elif len(batch.tasks) > 1:
                alone.extend(_Batch((task,), TRIES - 2) for task in batch.tasks)
            else:
                done((_lost(batch.tasks[0], self._why, batch.tries),))

    # -- the own pool --------------------------------------------------------------------------------------------------
    def _pool(self, batch: _Batch) -> Executor:
        if self._executor is None:
            from multiprocessing import get_context

            self._sent |= self._blobs(dict.fromkeys(d for t in batch.tasks for _, d in t.networks))
            self._executor = ProcessPoolExecutor(
                self._jobs, get_context("spawn"), initializer=_begin, initargs=(dict(self._sent),)
            )
        return self._executor

    def _stop(self, hung: Iterable[_Batch]) -> None:
        """End workers that do not answer; what they had counts as two tries."""
        self._why = f"no result within {self._patience:g} s, or its worker process died"
        for batch in hung:
            batch.tries += 1
        for process in list((getattr(self._executor, "_processes", None) or {}).values()):
            process.kill()

    def _mend(self) -> None:
        """A new pool in place of a broken one."""
        if not self._own:
            raise ReportError(
                "the executor broke: its workers died. Finished designs are kept; go on with a fresh executor and resume"
            )
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None


def _lost(task: Task, why: str, tries: int) -> Outcome:
    return Outcome(task.key, task.level, {}, f"{why}, {tries} times", crashed=True)


def _workers_of(executor: Executor) -> int:
    known = getattr(executor, "_max_workers", None) or getattr(executor, "workers", None)
    return int(known) if isinstance(known, int) and known > 0 else 8


def _is_worker() -> bool:
    from multiprocessing import parent_process

    return parent_process() is not None


def _begin(blobs: Mapping[str, bytes]) -> None:
    """First thing in a worker: Ctrl-C is the parent's business, and without a parent there is nothing to do."""
    from multiprocessing import parent_process

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()

    def follow() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    install(blobs)


def cluster_executor(address: str, *, timeout: float = 10.0) -> tuple[Executor, Callable[[], None]]:
    """An executor on a dask cluster, and what closes the connection.

    Parameters
    ----------
    address : str
        Of the scheduler, as ``tcp://10.0.0.1:8786``.
    timeout : float
        Seconds to wait for its answer.

    Raises
    ------
    ArchError
        dask.distributed is not installed, nobody answers, or the cluster has no workers.
    """
    try:
        from distributed import Client
    except ImportError:
        raise ArchError(
            f"--cluster {address}: dask.distributed is not installed; pip install 'tilewright[cluster]'"
        ) from None
    try:
        client = Client(address, timeout=timeout, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ArchError(
            f"--cluster {address}: no scheduler answers ({error}); start one with `dask scheduler`"
        ) from None
    workers = sum(w["nthreads"] for w in client.scheduler_info(n_workers=-1)["workers"].values())
    if not workers:
        client.close()
        raise ArchError(f"--cluster {address}: has no workers; start some with `dask worker {address}`")
    executor = client.get_executor(pure=False)
    executor.workers = workers
    return executor, client.close
