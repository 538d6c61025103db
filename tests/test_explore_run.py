"""Workers: who works does not matter, and who dies takes nothing along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tilewright as tw
from tilewright.explore_evaluate import Absent, Outcome, Task, evaluate_batch
from tilewright.explore_networks import Feed, Networks
from tilewright.explore_points import NetworkChoice, numbered
from tilewright.explore_run import Crew, cluster_executor
from tilewright.explore_space import Space
from tilewright.ir.errors import ArchError, ReportError

SPACE = {
    "arch": {"base": "b512"},
    "space": {"conv.oc": [8, 16], "dwc.channels": [0, 8], "clock_mhz": [100, 200, 300]},
}


@pytest.fixture(scope="module")
def networks() -> Networks:
    made = Networks(["zoo:tiny"], Space.build(SPACE), Feed(synthetic_calibration=True))
    made.of(NetworkChoice())
    return made


@pytest.fixture(scope="module")
def tasks(networks: Networks) -> tuple[Task, ...]:
    out = []
    for p in numbered(Space.build(SPACE)):
        assert p.arch is not None
        named = tuple((n, q.digest) for n, q in networks.of(p.network).items())
        out.append(Task(p.key, p.arch, p.board, p.dram, p.objective, named, "estimate"))
    return tuple(out)


@pytest.fixture(scope="module")
def want(networks: Networks, tasks: tuple[Task, ...]) -> dict[str, Any]:
    done = evaluate_batch(tasks, networks.blobs(networks.known))
    assert not isinstance(done, Absent)
    return {o.key: o.costs for o in done}


def gather(crew: Crew, tasks: tuple[Task, ...]) -> dict[str, Outcome]:
    found: dict[str, Outcome] = {}
    crew.run(tasks, lambda outcomes: found.update({o.key: o for o in outcomes}), total=len(tasks))
    crew.close()
    return found


def costs(found: dict[str, Outcome]) -> dict[str, Any]:
    return {key: o.costs for key, o in found.items()}


class Lethal:
    """Ends the process that unpickles it, as the kernel ends one that eats all memory."""

    def __reduce__(self) -> Any:
        return os._exit, (9,)


class Endless:
    """Keeps the process that unpickles it busy for longer than anybody waits."""

    def __reduce__(self) -> Any:
        return time.sleep, (600,)


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_results_are_the_same_whoever_works(
    jobs: int, networks: Networks, tasks: tuple[Task, ...], want: dict[str, Any]
) -> None:
    assert costs(gather(Crew(jobs=jobs, blobs=networks.blobs), tasks)) == want


def test_any_executor_will_do(networks: Networks, tasks: tuple[Task, ...], want: dict[str, Any]) -> None:
    with ThreadPoolExecutor(2) as executor:
        assert costs(gather(Crew(executor=executor, blobs=networks.blobs), tasks)) == want
        assert executor.submit(int).result() == 0, "somebody else's executor stays open"


def test_a_worker_that_lacks_a_network_says_so_and_gets_it(tasks: tuple[Task, ...]) -> None:
    strange = replace(tasks[0], networks=(("n", "0" * 64),))
    assert evaluate_batch([strange]) == Absent(("0" * 64,))


def test_networks_travel_once_a_worker(networks: Networks, tasks: tuple[Task, ...]) -> None:
    """Batches carry names; only one that was answered `Absent` carries the network."""
    from tilewright import explore_evaluate

    explore_evaluate._NETWORKS.clear()
    laden = []

    class Counting(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            laden.append(args[1] is not None)
            future: Future[Any] = Future()
            future.set_result(fn(*args, **kwargs))
            return future

    assert len(gather(Crew(executor=Counting(), blobs=networks.blobs), tasks)) == len(tasks)
    assert sum(laden) <= 16 < len(laden) + 16, "at most the batches that were out before the first answer"


def test_a_design_that_crashes_the_model_is_recorded(
    networks: Networks, tasks: tuple[Task, ...], want: dict[str, Any]
) -> None:
    broken = replace(tasks[3], arch="no machine")  # type: ignore[arg-type]
    found = gather(Crew(jobs=0, blobs=networks.blobs), (*tasks[:3], broken, *tasks[4:]))
    assert found[broken.key].crashed
    assert "tiny: AttributeError" in found[broken.key].problem
    assert costs({k: o for k, o in found.items() if k != broken.key}) == {
        k: v for k, v in want.items() if k != broken.key
    }


def test_a_design_that_kills_its_worker_is_found_among_the_innocent(
    networks: Networks, tasks: tuple[Task, ...], want: dict[str, Any]
) -> None:
    """Its batch is tried again, then design by design; every other design has its result."""
    deadly = replace(tasks[5], dram=Lethal())  # type: ignore[arg-type]
    found = gather(Crew(jobs=1, blobs=networks.blobs), (*tasks[:5], deadly, *tasks[6:]))
    assert found[deadly.key].problem == "its worker process died, 3 times"
    assert found[deadly.key].crashed
    assert costs({k: o for k, o in found.items() if k != deadly.key}) == {
        k: v for k, v in want.items() if k != deadly.key
    }


def test_a_design_that_hangs_is_ended_and_recorded(
    networks: Networks, tasks: tuple[Task, ...], want: dict[str, Any]
) -> None:
    """Not even a kernel that never returns stops a study."""
    hung = replace(tasks[1], dram=Endless())  # type: ignore[arg-type]
    found = gather(Crew(jobs=1, blobs=networks.blobs, patience=5), (tasks[0], hung))
    assert "no result within 5 s" in found[hung.key].problem
    assert found[tasks[0].key].costs == want[tasks[0].key]


def test_a_killed_worker_loses_nothing(
    networks: Networks, tasks: tuple[Task, ...], want: dict[str, Any]
) -> None:
    crew = Crew(jobs=2, blobs=networks.blobs)
    found: dict[str, Outcome] = {}
    killed = []

    def done(outcomes: tuple[Outcome, ...]) -> None:
        found.update({o.key: o for o in outcomes})
        if not killed:
            victim = next(iter(crew._executor._processes))  # type: ignore[union-attr]
            os.kill(victim, signal.SIGKILL)
            killed.append(victim)

    crew.run(tasks, done, total=len(tasks))
    crew.close()
    assert killed
    assert costs(found) == want


def test_an_executor_of_somebody_else_that_breaks_says_how_to_go_on(
    networks: Networks, tasks: tuple[Task, ...]
) -> None:
    from concurrent.futures import BrokenExecutor

    class Broken(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(BrokenExecutor())
            return future

    with pytest.raises(ReportError, match="go on with a fresh executor and resume"):
        gather(Crew(executor=Broken(), blobs=networks.blobs), tasks)


def test_an_executor_that_loses_tasks_is_asked_again(
    networks: Networks, tasks: tuple[Task, ...], want: dict[str, Any]
) -> None:
    """As dask's, whose futures fail when a worker was lost too often."""
    lost = []

    class Forgetful(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            if len(lost) < 2:
                lost.append(1)
                future.set_exception(RuntimeError("worker is gone"))
            else:
                future.set_result(fn(*args, **kwargs))
            return future

    assert costs(gather(Crew(executor=Forgetful(), blobs=networks.blobs), tasks)) == want


def test_impossible_numbers_of_jobs_are_refused(networks: Networks) -> None:
    with pytest.raises(ArchError, match="--jobs -1"):
        Crew(jobs=-1, blobs=networks.blobs)


def test_workers_end_with_their_parent() -> None:
    """A sweep that is killed leaves no process behind."""
    code = (
        "import os, signal\n"
        "from tilewright.explore_run import Crew, _begin\n"
        "if __name__ == '__main__':\n"
        "    from concurrent.futures import ProcessPoolExecutor\n"
        "    from multiprocessing import get_context\n"
        "    pool = ProcessPoolExecutor(1, get_context('spawn'), initializer=_begin, initargs=({},))\n"
        "    print(pool.submit(os.getpid).result(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    script = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60
    )
    worker = int(script.stdout)
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its parent by ten seconds")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A dask scheduler and two workers on loopback, as separate processes."""
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    folder = tmp_path_factory.mktemp("dask")
    file = folder / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder}
    options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
    scheduler = subprocess.Popen([*dask, "scheduler", *options], **quiet)
    worker = [
        "--scheduler-file",
        str(file),
        "--host",
        "127.0.0.1",
        "--nthreads",
        "1",
        "--no-dashboard",
        "--no-nanny",
    ]
    started = [subprocess.Popen([*dask, "worker", *worker], **quiet) for _ in range(2)]
    try:
        import json

        for _ in range(300):
            if file.exists() and file.stat().st_size:
                break
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        from distributed import Client

        with Client(address, timeout=30, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
        yield address, started
    finally:
        for process in [*started, scheduler]:
            process.terminate()
        for process in [*started, scheduler]:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:  # it waits for work that a dead worker took with it
                process.kill()
                process.wait()


@pytest.mark.filterwarnings("ignore")  # dask's own, of other versions of its parts
def test_a_cluster_gives_the_same_results_and_survives_the_loss_of_a_worker(
    cluster: tuple[str, list[subprocess.Popen[bytes]]],
    networks: Networks,
    tasks: tuple[Task, ...],
    want: dict[str, Any],
    tmp_path: Path,
) -> None:
    address, workers = cluster
    study = tw.explore("zoo:tiny", SPACE, levels="estimate", cluster=address, output=tmp_path / "s")
    assert [d.choices for d in study.pareto] == [
        d.choices for d in tw.explore("zoo:tiny", SPACE, levels="estimate", jobs=0).pareto
    ]
    executor, disconnect = cluster_executor(address)
    crew = Crew(executor=executor, blobs=networks.blobs)
    assert crew.workers == 2
    found: dict[str, Outcome] = {}

    def done(outcomes: tuple[Outcome, ...]) -> None:
        found.update({o.key: o for o in outcomes})
        workers[0].kill()

    crew.run(tasks, done, total=len(tasks))
    crew.close()
    disconnect()
    assert costs(found) == want


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_is_not_there_is_an_error_of_the_user() -> None:
    pytest.importorskip("distributed", reason="dask.distributed is not installed")
    with pytest.raises(ArchError, match="no scheduler answers"):
        cluster_executor("tcp://127.0.0.1:9", timeout=1)
