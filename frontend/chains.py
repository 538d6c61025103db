"""Chains: tensors that are a function of one other tensor, value by value.

Any connected part of the graph in which every operator is elementwise, and every operand but one root a constant or
another member, is one function of that root; it becomes one table, or a clamp in the root's producer.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass

import numpy as np

from .elementwise import ELEMENTWISE
from .layers import Step
from .network import Network, Node

__all__ = ["Chains", "find_chains"]

REAL_TYPES = frozenset({1, 10, 11})
"""ONNX element types float, float16 and double (onnx.TensorProto)."""


@dataclass(frozen=True, eq=False)
class Chains:
    """Elementwise structure of a network.

    Parameters
    ----------
    ancestors : dict of tensor name to tensor names
        All tensors it is a function of, nearest first.
    stored : set of tensor names
        Tensors that must exist whatever happens: read by other operators, outputs, or given a scale by the model.
    """

    network: Network
    ancestors: Mapping[str, tuple[str, ...]]
    stored: frozenset[str]

    def __contains__(self, tensor: str) -> bool:
        return tensor in self.ancestors

    def root(self, tensor: str) -> str:
        """The nearest ancestor that is stored anyway, else the farthest."""
        ancestors = self.ancestors[tensor]
        return next((a for a in ancestors if a in self.stored), ancestors[-1])

    def sole(self, tensor: str) -> bool:
        """Whether a stored tensor is the only one with its root, and the root itself need not be stored."""
        root = self.root(tensor)
        return (
            root not in self.stored
            and sum(self.root(t) == root for t in self.ancestors if t in self.stored) == 1
        )

    def steps(self, tensor: str) -> tuple[tuple[Step, ...], tuple[Node, ...]]:
        """What leads from a tensor's root to it, and the nodes that say so."""
        root, wanted, found = self.root(tensor), [tensor], dict[str, Node]()
        while wanted:
            name = wanted.pop()
            if name == root or name in found:
                continue
            node = self.network.producer[name]
            found[name] = node
            wanted += [i for i in node.inputs if i and self.network.scalar(i) is None]
        nodes = tuple(sorted(found.values(), key=lambda n: self.network.position[n.name]))
        return tuple(self._step(n) for n in nodes), nodes

    def _step(self, node: Node) -> Step:
        operands: list[str | float] = []
        for i, name in enumerate(node.inputs):
            value = self.network.scalar(name) if name else None
            if not name:  # an absent bound of Clip
                operands.append(-np.inf if i == 1 else np.inf)
            else:
                operands.append(name if value is None else value)
        return Step(node.op, tuple(operands), node.outputs[0], node.attributes)


def find_chains(network: Network, host: Container[str]) -> Chains:
    """The chains of a network, some of whose nodes stay with the host."""
    ancestors: dict[str, tuple[str, ...]] = {}
    for node in network.nodes:
        if node.name in host or node.op not in ELEMENTWISE or node.captured or len(node.outputs) != 1:
            continue
        out = node.outputs[0]
        tensors = list(dict.fromkeys(i for i in node.inputs if i and network.scalar(i) is None))
        shape = network.shapes.get(out)
        if (
            not tensors
            or shape is None
            or min(shape, default=1) < 1
            or network.types.get(out, 1) not in REAL_TYPES
        ):
            continue
        if any(t in network.constants or network.shapes.get(t) != shape for t in tensors):
            continue
        # A tensor with a scale of its own is rounded there: functions do not reach through it.
        reach = [(t,) if t in network.quants else (t, *ancestors.get(t, ())) for t in tensors]
        common = tuple(t for t in reach[0] if all(t in other for other in reach[1:]))
        if common:
            ancestors[out] = common
    stored = set(network.output_names) | set(network.quants)
    for node in network.nodes:
        if not node.outputs or node.outputs[0] not in ancestors:
            stored.update(node.reads)
    return Chains(network, ancestors, frozenset(stored))
