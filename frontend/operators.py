"""Every ONNX operator that the DPU runs, and the pass that lowers a network with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .lower import Handler, Lowered, Lowering, Reason
from .lower_boxes import BOXES
from .lower_linear import LINEAR
from .lower_pairs import PAIRS
from .lower_pools import POOLS
from .lower_resize import RESIZES
from .lower_views import VIEWS
from .network import Network

__all__ = ["HANDLERS", "lower"]

HANDLERS: Mapping[str, Handler] = {**BOXES, **LINEAR, **PAIRS, **POOLS, **RESIZES, **VIEWS}
"""What a node becomes, by operator."""


def lower(
    network: Network, host: Mapping[str, Reason] | None = None, memo: dict[Any, Any] | None = None
) -> Lowered:
    """Lower every node that the DPU can run.

    Parameters
    ----------
    host : dict of node name to (reason, help), optional
        Nodes that must stay with the host.
    memo : dict, optional
        Rearranged weights of an earlier lowering of the same network.

    A node that turns out not to fit goes to the host, and the rest is lowered again without it.
    """
    decided = dict(host or {})
    memo = {} if memo is None else memo
    while True:
        attempt = Lowering(network, decided, memo)
        lowered = attempt.run(HANDLERS)
        if not attempt.failed:
            return lowered
        decided.update(attempt.failed)
