"""Operators that cost nothing: the same data under another shape or name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .chains import REAL_TYPES
from .lower import Lowering
from .network import Node
from .views import Unmapped, View

__all__ = ["VIEWS", "identity"]


def identity(lo: Lowering, node: Node) -> str:
    """The same tensor under another name."""
    if len(node.outputs) > 1 and any(o in lo.network.consumers for o in node.outputs[1:] if o):
        raise Unmapped("its second output is used", "export for inference")
    lo.alias(node.outputs[0], node.inputs[0], lo.view(node.inputs[0]))
    return "nothing"


def _cast(lo: Lowering, node: Node) -> str:
    kinds = {lo.network.types.get(node.inputs[0], 1), lo.network.types.get(node.outputs[0], 1)}
    if not kinds <= REAL_TYPES:
        raise Unmapped("casts between integers and floats", "cast before the network")
    return identity(lo, node)


def _reshape(lo: Lowering, node: Node) -> str:
    lo.alias(node.outputs[0], node.inputs[0], lo.view(node.inputs[0]).reshape(lo.shape(node.outputs[0])))
    return "a view"


def _transpose(lo: Lowering, node: Node) -> str:
    view = lo.view(node.inputs[0])
    perm = node.attributes.get("perm") or list(range(len(view.axes)))[::-1]
    lo.alias(node.outputs[0], node.inputs[0], view.transpose([int(p) for p in perm]))
    return "a view"


def _depth_to_space(lo: Lowering, node: Node) -> str:
    n, c, h, w = lo.shape(node.inputs[0])
    b = int(node.attributes["blocksize"])
    view = lo.view(node.inputs[0])
    if node.attributes.get("mode", "DCR") == "DCR":
        split = view.reshape((n, b, b, c // (b * b), h, w)).transpose((0, 3, 4, 1, 5, 2))
    else:
        split = view.reshape((n, c // (b * b), b, b, h, w)).transpose((0, 1, 4, 2, 5, 3))
    joined = (split.axes[0], split.axes[1], split.axes[2] + split.axes[3], split.axes[4] + split.axes[5])
    lo.alias(node.outputs[0], node.inputs[0], View(split.storage, joined))
    return "a view, moved where it is read"


def _space_to_depth(lo: Lowering, node: Node) -> str:
    n, c, h, w = lo.shape(node.inputs[0])
    b = int(node.attributes["blocksize"])
    split = lo.view(node.inputs[0]).reshape((n, c, h // b, b, w // b, b)).transpose((0, 3, 5, 1, 2, 4))
    joined = (split.axes[0], split.axes[1] + split.axes[2] + split.axes[3], split.axes[4], split.axes[5])
    lo.alias(node.outputs[0], node.inputs[0], View(split.storage, joined))
    return "a view, moved where it is read"


VIEWS: Mapping[str, Callable[[Lowering, Node], str]] = {
    "Cast": _cast,
    "DepthToSpace": _depth_to_space,
    "Dropout": identity,
    "Flatten": _reshape,
    "Identity": identity,
    "Reshape": _reshape,
    "SpaceToDepth": _space_to_depth,
    "Squeeze": _reshape,
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
"""What each operator that moves no data becomes."""
