"""Partition: what runs on the DPU, what on the host, in which order, and why.

Layers and host nodes get a rank: it rises by one at each change between DPU and host along a path, and everything of
one rank is one segment. A DPU segment that is too small to be worth two border crossings joins its host neighbours.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import networkx as nx

from .layers import Layer, Linear
from .lower import Lowered
from .network import Network, Node
from .operators import lower
from .scales import known_scales

__all__ = ["Coverage", "NodeCoverage", "Piece", "Plan", "check", "layer_macs", "partition"]

WORTH_SHARE = 0.02
"""A DPU segment with less than this share of the network's MACs stays on the host when others surround it: each
border costs a quantise, a dequantise and a start of the DPU (measured on the recogniser of PP-OCRv4, whose attention
blocks would be cut into 13 segments for 0.1 % of its MACs)."""


@dataclass(frozen=True, eq=False)
class Piece:
    """One segment to be: layers for the DPU, or nodes for the host."""

    layers: tuple[Layer, ...] = ()
    nodes: tuple[Node, ...] = ()


@dataclass(frozen=True, eq=False)
class Plan:
    """Segments in execution order over a lowered network."""

    network: Network
    lowered: Lowered
    pieces: tuple[Piece, ...]

    @property
    def seen_outside(self) -> frozenset[str]:
        """Maps that become outputs of the network or that the host reads."""
        tensors = self.network.output_names | {t for p in self.pieces for n in p.nodes for t in n.reads}
        return frozenset(v.storage for t, v in self.lowered.views.items() if t in tensors)


@dataclass(frozen=True, slots=True)
class NodeCoverage:
    """Where one ONNX node runs, and why."""

    name: str
    op: str
    where: str
    reason: str
    help: str


@dataclass(frozen=True)
class Coverage:
    """Operator coverage of a network, node by node."""

    network: str
    nodes: tuple[NodeCoverage, ...]
    macs_dpu: int
    segments_dpu: int
    segments_host: int

    @property
    def complete(self) -> bool:
        """Every node runs on the DPU."""
        return all(n.where == "dpu" for n in self.nodes)

    def to_json(self) -> dict[str, Any]:
        """Plain values, schema `tilewright.coverage/1`."""
        return {
            "schema": "tilewright.coverage/1",
            "network": self.network,
            "macs_dpu": self.macs_dpu,
            "segments": {"dpu": self.segments_dpu, "host": self.segments_host},
            "nodes": [
                {"name": n.name, "op": n.op, "where": n.where, "reason": n.reason, "help": n.help}
                for n in self.nodes
            ],
        }

    def __str__(self) -> str:
        counts = {w: sum(n.where == w for n in self.nodes) for w in ("dpu", "host", "unsupported")}
        lines = [
            f"{self.network}: {counts['dpu']} nodes on the DPU, {counts['host']} on the host, {counts['unsupported']} unsupported"
        ]
        lines += [
            f"  {n.where:11} {n.op:20} {n.name}: {n.reason}; {n.help}" for n in self.nodes if n.where != "dpu"
        ]
        return "\n".join(lines)


def layer_macs(layer: Layer, lowered: Lowered) -> int:
    """Multiply-accumulates of a layer, counted as `ir.graph` counts them."""
    if not isinstance(layer, Linear) or layer.moves:
        return 0
    h, w, _ = lowered.shapes[layer.inputs[0] if layer.transposed else layer.output]
    return h * w * prod(layer.weight.shape)


def partition(network: Network, *, calibrated: bool = False) -> Plan:
    """Lower a network and order it into segments.

    Parameters
    ----------
    calibrated : bool
        Calibration data can give the scales that an already quantised model leaves out; without, what it
        leaves in float stays with the host.

    Nodes whose DPU segment is not worth its borders move to the host, with that as the reason.
    """
    host: dict[str, tuple[str, str]] = {}
    memo: dict[Any, Any] = {}
    while True:
        lowered = lower(network, host, memo)
        plan = _rank(network, lowered)
        more = {} if calibrated or not network.quantised else _left_in_float(plan)
        more = more or _not_worth(plan)
        if not more:
            return plan
        host = {**lowered.host, **more}


def _left_in_float(plan: Plan) -> dict[str, tuple[str, str]]:
    """Nodes around tensors to which a quantised model gives no scale."""
    layers = [x for p in plan.pieces for x in p.layers]
    quants = known_scales(plan.lowered, layers)
    found: dict[str, tuple[str, str]] = {}
    for layer in layers:
        missing = [n for n in (*layer.inputs, layer.output) if n not in quants]
        if missing:
            why = f"the quantised model gives {missing[0]} no scale"
            help_ = "quantise it completely, or give calibration data to put it on the DPU"
            for name in layer.nodes:
                found[name] = (why, help_)
    return found


def _rank(network: Network, lowered: Lowered) -> Plan:
    graph: nx.DiGraph[Any] = nx.DiGraph()
    hosts = {n.name: n for n in network.nodes if n.name in lowered.host}
    made_by_layer = {layer.output: layer for layer in lowered.layers}
    made_by_host = {t: n for n in hosts.values() for t in n.outputs if t}
    for layer in lowered.layers:
        graph.add_node(layer)
        for name in layer.inputs:
            if name in made_by_layer:
                graph.add_edge(made_by_layer[name], layer)
            elif name in lowered.sources and lowered.sources[name].tensor in made_by_host:
                graph.add_edge(made_by_host[lowered.sources[name].tensor], layer)
    for node in hosts.values():
        graph.add_node(node)
        for tensor in node.reads:
            if tensor in made_by_host:
                graph.add_edge(made_by_host[tensor], node)
            elif tensor in lowered.views and lowered.views[tensor].storage in made_by_layer:
                graph.add_edge(made_by_layer[lowered.views[tensor].storage], node)
    wanted: set[Layer | Node] = {n for n in graph if isinstance(n, Node)}
    for port in network.outputs:
        view = lowered.views.get(port.name)
        if view is not None and view.storage in made_by_layer:
            wanted.add(made_by_layer[view.storage])
    alive = set(wanted)
    for item in wanted:
        alive |= nx.ancestors(graph, item)
    ranks: dict[Any, int] = {}
    for item in nx.topological_sort(graph):
        on_host = isinstance(item, Node)
        rank = -1 if on_host else 0
        for before in graph.predecessors(item):
            rank = max(rank, ranks[before] + (isinstance(before, Node) != on_host))
        ranks[item] = rank
    pieces = []
    for rank in sorted({r for i, r in ranks.items() if i in alive}):
        layers = tuple(x for x in lowered.layers if x in alive and ranks[x] == rank)
        nodes = tuple(n for n in hosts.values() if ranks[n] == rank)
        pieces.append(Piece(layers, nodes))
    return Plan(network, lowered, tuple(pieces))


def _not_worth(plan: Plan) -> dict[str, tuple[str, str]]:
    """Nodes of DPU segments too small to stand between host segments."""
    macs = {
        i: sum(layer_macs(x, plan.lowered) for x in p.layers) for i, p in enumerate(plan.pieces) if p.layers
    }
    total = sum(macs.values())
    if len(macs) < 2:
        return {}
    biggest = max(macs, key=lambda i: (macs[i], -i))
    found: dict[str, tuple[str, str]] = {}
    for i, value in macs.items():
        if i != biggest and value < WORTH_SHARE * total:
            why = f"its part between host operators has {value:,} of {total:,} MACs, below {WORTH_SHARE:.0%}: not worth two borders"
            names = [n for layer in plan.pieces[i].layers for n in layer.nodes]
            found.update(dict.fromkeys(names, (why, "it joins its neighbours on the host")))
    return found


def check(network: Network) -> Coverage:
    """Where every node runs, with the reason and what would help; before any quantisation."""
    plan = partition(network)
    return coverage(plan)


def coverage(plan: Plan) -> Coverage:
    """Coverage of a plan."""
    lowered: Lowered = plan.lowered
    notes: Mapping[str, str] = lowered.notes
    nodes = []
    for node in plan.network.nodes:
        if node.name in lowered.host:
            reason, help_ = lowered.host[node.name]
            nodes.append(NodeCoverage(node.name, node.op, "host", reason, help_))
        else:
            note = notes.get(node.name, "a view")
            reason = note if note.startswith("folded") else f"becomes {note}"
            nodes.append(NodeCoverage(node.name, node.op, "dpu", reason, ""))
    return Coverage(
        plan.network.name,
        tuple(nodes),
        sum(layer_macs(x, lowered) for p in plan.pieces for x in p.layers),
        sum(bool(p.layers) for p in plan.pieces),
        sum(bool(p.nodes) for p in plan.pieces),
    )
