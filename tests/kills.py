"""Kill a sweep at random moments, resume it each time, and compare with one that nobody disturbed.

python tests/kills.py [--kills 100] [--jobs 0] [--real] [--seed 0]

A life ends with SIGKILL. What it had reported as stored must be in the file afterwards; the sweep that is killed and
resumed until it ends must have the rows and the front of the undisturbed one. Without ``--real`` a design costs a
fixed time and a number from its hash, so that 100 lives take minutes; with it, estimate and simulation are the real
ones.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPACE: dict[str, Any] = {
    "title": "Killed",
    "arch": {"base": "b512", "dma": {"bits": 64, "burst": 16}},
    "space": {
        "conv.pixels": [2, 4],
        "conv.oc": [4, 8, 12, 16],
        "conv.drain": [1, 2],
        "dwc.channels": [0, 4, 8],
        "dwc.taps": [1, 3],
        "maps.kib": [64, 96, 128],
        "clock_mhz": [100, 110, 120, 130, 140, 150],
    },
    "constraints": {"fits": "pynq-z2"},
}
SMALL = SPACE | {"space": {"conv.oc": [4, 8, 12], "dwc.channels": [0, 4], "clock_mhz": [100, 125, 150]}}
NETWORK = "tiny.npz"
"""Quantised once for all lives."""
COST_SECONDS = 0.006
"""Of a made-up design: a sweep lasts seconds, and most kills hit it at work."""


@dataclass(frozen=True, slots=True)
class Tally:
    """What some kills did."""

    kills: int
    sweeps: int
    lost: int
    different: int
    at_work: int
    """Kills that hit a life which had stored something."""


def life(folder: Path, *, jobs: int, real: bool, resume: bool) -> None:
    """One run of the sweep; a line ``stored N`` whenever N designs of a level are in the file."""
    from tilewright import exploration, explore_evaluate, frontend
    from tilewright.explore_campaign import Progress

    if not real:

        def made_up(graphs: Any, task: Any) -> explore_evaluate.Cost:
            del graphs
            time.sleep(COST_SECONDS)
            n = zlib.crc32(task.key.encode())
            return explore_evaluate.Cost(10_000 + n % 90_000, 1000 + n % 7, 1e8 + n, 1)

        explore_evaluate._estimated = explore_evaluate._simulated = made_up  # type: ignore[assignment]

    def tell(now: Progress) -> None:
        print("stored", now.level, now.done, flush=True)

    assert frontend.Model  # loaded before the clock of the kill starts
    print("begun", flush=True)
    study = exploration.explore(
        folder.parent / NETWORK,
        SMALL if real else SPACE,
        objectives=("latency", "energy", "dsp"),
        jobs=jobs,
        output=folder,
        resume=resume,
        sample=4 if real else 16,
        on_progress=tell,
    )
    print("ended", json.dumps(study.to_dict() | {"seconds": 0}, sort_keys=True), flush=True)


def lived(
    folder: Path, *, jobs: int, real: bool, resume: bool, after: float | None, word: str = "begun"
) -> list[str]:
    """Lines of a life, ended by SIGKILL that many seconds after it said the word, or not at all."""
    command = [sys.executable, __file__, "--life", str(folder), "--jobs", str(jobs)]
    command += ["--real"] * real + ["--resume"] * resume
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, stdout=out, cwd=folder.parent)
        try:
            if after is not None:
                while process.poll() is None and word.encode() not in os.pread(out.fileno(), 1 << 16, 0):
                    time.sleep(0.005)
                try:
                    process.wait(after)
                except subprocess.TimeoutExpired:
                    process.send_signal(signal.SIGKILL)
            process.wait(600)
        finally:
            process.kill()
            process.wait()
        if after is None and process.returncode:
            raise SystemExit(f"a life that nobody ended did so itself, with {process.returncode}")
        out.seek(0)
        return out.read().splitlines()


def designs(folder: Path) -> dict[str, tuple[str, str | None, str | None]]:
    """Status and costs of every stored design."""
    from tilewright.explore_store import FILE, Store

    if not (folder / FILE).exists():
        return {}
    store = Store(folder)
    try:
        return {k: (r.status, repr(r.estimate), repr(r.simulated)) for k, r in store.rows().items()}
    finally:
        store.close()


def campaign(kills: int, *, jobs: int, real: bool, seed: int, longest: float, place: Path) -> Tally:
    """Kill sweeps until that many kills hit."""
    import tilewright as tw
    from tilewright.stored import pack_model

    network = tw.load(tw.zoo.build("tiny"), name="tiny")
    (place / NETWORK).write_bytes(pack_model(tw.quantize(network, tw.Calibration.synthetic(network))))
    chance = random.Random(seed)
    (truth,) = (
        line
        for line in lived(place / "undisturbed", jobs=jobs, real=real, resume=False, after=None)
        if line.startswith("ended")
    )
    whole = designs(place / "undisturbed")
    done = lost = different = sweeps = at_work = 0
    while done < kills:
        sweeps += 1
        folder = place / f"sweep{sweeps}"
        before: dict[str, Any] = {}
        while True:
            after = chance.uniform(0.0, longest) if done < kills else None
            # Three of four fall while designs are being stored, the others anywhere from the start on.
            word = "stored" if chance.random() < 0.75 else "begun"
            there = (folder / "study.sqlite").exists()
            lines = lived(folder, jobs=jobs, real=real, resume=there, after=after, word=word)
            stored = designs(folder)
            lost += sum(stored.get(k, ("",)) != v and not _grown(stored.get(k), v) for k, v in before.items())
            told = [line.split() for line in lines if line.startswith("stored")]
            fresh = _at_level(stored) - _at_level(before)
            lost += max(0, sum_of_levels(told) - fresh)
            before = stored
            if lines and lines[-1].startswith("ended"):
                different += lines[-1] != truth
                different += {k: v[:2] for k, v in stored.items()} != {k: v[:2] for k, v in whole.items()}
                break
            done += 1
            at_work += bool(told)
        shutil.rmtree(folder)
        print(f"{done} kills, {sweeps} sweeps, {lost} designs lost, {different} different ends", flush=True)
    return Tally(done, sweeps, lost, different, at_work)


def _grown(now: Any, before: Any) -> bool:
    """A design that was estimated and is simulated since has lost nothing."""
    return now is not None and now[:2] == before[:2] and before[2] == "None"


def _at_level(stored: dict[str, Any]) -> int:
    """Evaluations in the file."""
    return sum((v[1] != "None") + (v[2] != "None") for v in stored.values())


def sum_of_levels(told: list[list[str]]) -> int:
    """Evaluations that a life said it had stored; a level's count starts anew with each of its rounds."""
    total, last, level = 0, 0, ""
    for _, now, count in told:
        if now != level or int(count) < last:
            total, last = total + last, 0
        level, last = now, int(count)
    return total + last


def main(words: list[str]) -> int:
    """Run the campaign; 1 where a design was lost or an end differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=1.0, help="seconds a life may last after its start")
    parser.add_argument("--real", action="store_true")
    parser.add_argument("--life", type=Path)
    parser.add_argument("--resume", action="store_true")
    given = parser.parse_args(words)
    if given.life is not None:
        life(given.life, jobs=given.jobs, real=given.real, resume=given.resume)
        return 0
    with tempfile.TemporaryDirectory() as place:
        found = campaign(
            given.kills,
            jobs=given.jobs,
            real=given.real,
            seed=given.seed,
            longest=given.longest,
            place=Path(place),
        )
    print(
        f"{found.kills} kills in {found.sweeps} sweeps, {found.at_work} of them at work: {found.lost} finished designs lost, "
        f"{found.different} ends that differ from the undisturbed one"
    )
    return 1 if found.lost or found.different else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
