"""The decisions of the compiled scheduler as a tiling: what `plan.plan_tiling` gives, in a fraction of its time.

`quick.decide` makes the decisions of `search`, `plan` and `place` on index arrays. Here each of its groups becomes the
candidate that it stands for and, with the words of its rings, statements of the tiling IR. The kernels behind it are
compiled once a machine and take a minute or more for it, so this is for many tilings: sweeps, explorations.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..ir.arch import Arch
from ..ir.graph import Graph
from ..ir.tile import Group, Ring, TileProgram
from .candidates import Candidate
from .groups import group_of, view_group
from .layers import Layer
from .quick import Decisions, decide
from .quick_network import MAP, Network, network
from .quick_place import GROUP
from .search import Objective, Options, Search, check_objective

__all__ = ["plan_decided"]

_RESIDENT, _STREAMED, _CHUNKS, _PARTS = range(4)
"""Modes of a group, as in `quick_plan`."""


def plan_decided(
    graph: Graph, arch: Arch, *, objective: Objective = "latency", dram_bytes_per_cycle: float = float("inf")
) -> tuple[TileProgram, tuple[Layer, ...]] | None:
    """Schedule a graph with default options; None where the kernels do not know all that the scheduler knows: of several
    frames at once, and of more maps that live at the same time than a set has bits.

    Raises
    ------
    ScheduleError
        A layer does not fit the machine in any tile.
    """
    check_objective(objective)
    if graph.frames > 1:
        return None
    net = network(graph, arch)
    stays, bit = (net.sizes.maps[:, MAP.index(name)] for name in ("may_stay", "bit"))
    if np.any((stays > 0) & (bit < 0)):
        return None
    decisions = decide(net, graph, arch, dram_bytes_per_cycle, objective)
    search = Search(graph, arch, net.layers, objective, dram_bytes_per_cycle, Options())
    return TileProgram(graph.name, arch.design_hash, tuple(_groups(search, net, decisions))), net.layers


def _groups(search: Search, net: Network, decisions: Decisions) -> list[Group]:
    """Groups in the order of the layers; views, for which nothing is decided, between them."""
    graph, layers = search.graph, net.layers
    maps = list(dict.fromkeys(t for layer in layers for t in (*layer.inputs, layer.output)))
    out: list[Group] = []
    done = 0
    for step, row in zip(decisions.steps.tolist(), decisions.groups.tolist(), strict=True):
        group = dict(zip(GROUP, row, strict=True))
        i, j = group["first"], group["stop"]
        out += [view_group(graph, layer) for layer in layers[done:i]]
        c = _candidate(search, net, decisions, step, group)
        run = net.runs.run_at[j, j - i]
        names = [maps[m] for m in net.runs.maps[net.runs.run_maps[run] : net.runs.run_maps[run + 1]]]
        rings = {}
        for t, (base, rows, blocks, width) in zip(
            names, decisions.rings[group["rings"] :].tolist(), strict=False
        ):
            if t in c.rings:
                at, first = divmod(base, search.arch.group_words)
                rings[t] = Ring(at, first, rows, width, width, blocks, c.rings[t].fold)
        out.append(group_of(graph, c, rings))
        done = j
    return [*out, *(view_group(graph, layer) for layer in layers[done:])]


def _candidate(
    search: Search, net: Network, decisions: Decisions, step: list[int], group: dict[str, int]
) -> Candidate:
    """The candidate that a group stands for."""
    i, j, before, after = step[:4]
    maps, bit = net.sizes.maps, MAP.index("bit")
    layers = net.layers[i:j]
    stay: set[str] = set()
    edges = range(net.chain.in_ptr[i], net.chain.in_ptr[j])
    for t, m in zip((t for layer in layers for t in layer.inputs), net.chain.ins[edges], strict=True):
        if net.chain.maker[m] < i and _holds(before, maps[m, bit]):
            stay.add(t)
    for layer, m in zip(layers, net.chain.out[i:j], strict=True):
        if net.chain.last_reader[m] >= j and _holds(after, maps[m, bit]):
            stay.add(layer.output)
    homes = search.homes(i, j, stay)
    way: dict[str, Any] = {"resident": True}
    mode, several = group["mode"], net.runs.strips[group["entry"]] > 1
    if mode != _RESIDENT:
        resident = mode == _CHUNKS and bool(several)
        sizes = zip(layers, decisions.chunk[i:j], strict=True)
        chunk = {layer.name: int(n) for layer, n in sizes if layer.parts}
        order = "chunks" if mode == _CHUNKS else "strips"
        way = {"resident": resident, "chunk": chunk, "order": order, "part": mode in (_CHUNKS, _PARTS)}
    tiled = group["cols"] < search.graph.tensors[layers[-1].output].shape[1]
    cols = group["cols"] if tiled else None
    nest = search.costing.nest(layers, homes.outputs, group["rows"], cols, **way)
    c = search.costing.placed(nest, homes) if nest is not None else None
    assert c is not None, layers[0].name  # the kernels found that it fits
    return c


def _holds(mask: int, bit: int) -> bool:
    return bit >= 0 and bool(mask >> int(bit) & 1)
