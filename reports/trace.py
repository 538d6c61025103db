"""`trace.json`: the schedule as it ran, for ui.perfetto.dev or chrome://tracing.

One process a segment, one track an engine, one slice an instruction from its start to the cycle in which its engine
is free for the next; counter tracks show the bytes that LOAD and SAVE move. Times are microseconds of the core clock,
as the format asks; ``args`` hold the exact cycles.
Source: "Trace Event Format", Google, 2016, complete ("X"), counter ("C") and metadata ("M") events.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..hwsim.results import CAUSES, Simulation, Timeline
from ..ir.isa import COLUMNS, Engine, Opcode, Program, VecOp
from .merge import aligned
from .palette import plain
from .result import Result, Segment

__all__ = ["chrome_trace", "moved_bytes", "windows"]

_CLASSES = ("", "ifmap", "weights", "ofmap")
"""`Program.traffic`."""
COUNTER_POINTS = 4000
"""Samples of a counter track: finer than any screen is wide."""


def chrome_trace(result: Result) -> str:
    """The trace as JSON text; segments without a timeline leave only their names."""
    events: list[dict[str, Any]] = []
    start = 0
    for i, segment in enumerate(result.segments):
        events += _segment(i, segment, start, result.model.name)
        start += segment.simulation.cycles
    lines = ",\n".join(json.dumps(e, separators=(",", ":")) for e in events)
    unit = '"displayTimeUnit":"ns","otherData":' + json.dumps(
        {"claim": result.total.claim, "clock_mhz": result.total.clock_mhz, "cycles": result.total.cycles}
    )
    return f'{{{unit},"traceEvents":[\n{lines}\n]}}\n'


def moved_bytes(program: Program) -> NDArray[np.int64]:
    """DRAM bytes of each instruction."""
    f = program.fields
    opcode, run = f[:, COLUMNS["opcode"]], f[:, COLUMNS["run_bytes"]]
    runs = f[:, COLUMNS["runs1"]] * f[:, COLUMNS["runs2"]]
    mapped = np.isin(opcode, [Opcode.LOAD, Opcode.SAVE])
    return np.where(mapped, run * runs, np.where(opcode == Opcode.FILL, run, 0))


def windows(
    timeline: Timeline, engine: Engine
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Rows of `timeline` on this engine, and the start and end of each slice.

    The DMA engines issue an instruction while the one before still arrives: a slice ends where the next starts, so
    that slices of a track never overlap.
    """
    rows = np.flatnonzero(timeline.engine == engine)
    rows = rows[np.argsort(timeline.start[rows], kind="stable")]
    start = timeline.start[rows]
    end = np.maximum(timeline.busy_end[rows], start)
    if len(rows) > 1:
        end[:-1] = np.minimum(end[:-1], start[1:])
    return rows, start, end


def _segment(number: int, segment: Segment, offset: int, network: str) -> list[dict[str, Any]]:
    simulation, program, timeline = segment.simulation, segment.program, aligned(segment.simulation)
    pid = number + 1
    title = plain(simulation.network or network)
    events: list[dict[str, Any]] = [
        {
            "ph": "M",
            "pid": pid,
            "name": "process_name",
            "args": {"name": f"{title} on {simulation.arch or 'DPU'}"},
        }
    ]
    if timeline is None:
        return events
    moved = moved_bytes(program) if program is not None else None
    for engine in Engine:
        rows, starts, ends = windows(timeline, engine)
        if not len(rows):
            continue
        events.append(
            {"ph": "M", "pid": pid, "tid": engine + 1, "name": "thread_name", "args": {"name": engine.name}}
        )
        events.append(
            {
                "ph": "M",
                "pid": pid,
                "tid": engine + 1,
                "name": "thread_sort_index",
                "args": {"sort_index": int(engine)},
            }
        )
        free = [0, *ends.tolist()]
        for row, start, end, before in zip(
            rows.tolist(), starts.tolist(), ends.tolist(), free[:-1], strict=True
        ):
            index, layer = int(timeline.index[row]), int(timeline.layer[row])
            name = (
                plain(simulation.layers[layer].name) if 0 <= layer < len(simulation.layers) else "(no layer)"
            )
            args: dict[str, Any] = {
                "layer": name,
                "instruction": index,
                "start_cycle": start + offset,
                "busy_end_cycle": int(timeline.busy_end[row]) + offset,
                "done_cycle": int(timeline.done[row]) + offset,
                "waited_for": CAUSES[int(timeline.cause[row])],
                "stall_cycles": max(0, start - before),
            }
            if program is not None and moved is not None:
                args["op"] = _mnemonic(program.fields[index])
                if moved[index]:
                    args["bytes"] = int(moved[index])
                    args["class"] = _CLASSES[int(program.traffic[index])]
            events.append(
                {
                    "ph": "X",
                    "pid": pid,
                    "tid": engine + 1,
                    "name": name,
                    "cat": engine.name,
                    "ts": _us(start + offset, simulation),
                    "dur": _us(end - start, simulation),
                    "args": args,
                }
            )
    if moved is not None:
        events += _counters(pid, simulation, timeline, moved, offset)
    return events


def _counters(
    pid: int, simulation: Simulation, timeline: Timeline, moved: NDArray[np.int64], offset: int
) -> list[dict[str, Any]]:
    """Bytes a cycle of LOAD and SAVE, as `rate` spreads them."""
    step = max(1, -(-simulation.cycles // COUNTER_POINTS))
    edges = np.arange(0, simulation.cycles + step, step)
    tracks = {e: rate(timeline, moved, e, edges) for e in (Engine.LOAD, Engine.SAVE)}
    events = []
    for i, edge in enumerate(edges[:-1].tolist()):
        values = {e.name: round(float(track[i]), 4) for e, track in tracks.items()}
        events.append(
            {
                "ph": "C",
                "pid": pid,
                "name": "DRAM bytes a cycle",
                "ts": _us(edge + offset, simulation),
                "args": values,
            }
        )
    return events


def rate(
    timeline: Timeline, moved: NDArray[np.int64], engine: Engine, edges: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Bytes a cycle of one engine between consecutive `edges`; the integral over the frame is the bytes moved.

    Data move in the order of the instructions, so those of one are spread from the completion of the one before (or
    its own start, if that is later) to its own completion.
    """
    rows = np.flatnonzero(timeline.engine == engine)
    size = moved[timeline.index[rows]].astype(np.float64)
    end = np.maximum.accumulate(timeline.done[rows].astype(np.float64)) if len(rows) else np.zeros(0)
    start = np.minimum(np.maximum(timeline.start[rows], np.concatenate([[0.0], end])[:-1]), end - 1)
    order = np.concatenate([start, end])
    slope = np.concatenate([size / (end - start), -size / (end - start)])
    by_time = np.argsort(order, kind="stable")
    times, slopes = order[by_time], np.cumsum(slope[by_time])
    # The running integral at each event, then at each edge by interpolation.
    integral = np.concatenate([[0.0], np.cumsum(slopes[:-1] * np.diff(times))]) if len(times) else np.zeros(0)
    at = np.interp(edges, times, integral, left=0.0) if len(times) else np.zeros(len(edges))
    return np.maximum(np.diff(at), 0.0) / np.diff(edges)


def _mnemonic(row: NDArray[np.int64]) -> str:
    opcode = Opcode(int(row[COLUMNS["opcode"]]))
    return f"VEC.{VecOp(int(row[COLUMNS['func']])).name}" if opcode == Opcode.VEC else opcode.name


def _us(cycles: int, simulation: Simulation) -> float:
    return cycles / simulation.clock_mhz
