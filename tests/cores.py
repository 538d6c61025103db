"""Cores that the tests of the hardware run programs on: small, so that they are built in a minute, and unlike each other."""

from __future__ import annotations

from tilewright.ir.arch import Arch

__all__ = ["CORES"]

_SMALL = {
    **{"conv.pixels": 2, "conv.ic": 4, "conv.oc": 4, "conv.drain": 1},
    **{"dwc.pixels": 2, "dwc.channels": 4, "dwc.drain": 1, "vec.pixels": 1, "vec.sums": 64},
    **{"maps.kib": 64, "weights.kib": 32, "weights.depthwise_kib": 4, "dma.bits": 64, "dma.ports": 1},
}
_BASE = Arch.preset("b512")

CORES: dict[str, Arch] = {
    "small": _BASE.override({"name": "small", **_SMALL}),
    "odd": _BASE.override(
        {
            **{"name": "odd", "conv.pixels": 3, "conv.ic": 10, "conv.oc": 6, "conv.drain": 2},
            **{"dwc.pixels": 3, "dwc.channels": 5, "dwc.taps": 4, "dwc.drain": 2, "vec.pixels": 2},
            **{"vec.table_pixels": 2, "vec.sums": 64, "maps.kib": 80, "maps.groups": 2, "weights.kib": 60},
            **{
                "weights.depthwise_kib": 10,
                "dma.bits": 32,
                "dma.ports": 3,
                "dma.burst": 8,
                "dma.outstanding": 2,
            },
            **{"queues.depth": 3, "queues.prefetch": 16},
        }
    ),
    "no depthwise engine": _BASE.override(
        {
            **_SMALL,
            **{
                "name": "nodw",
                "dwc.pixels": 0,
                "dwc.channels": 0,
                "dma.bits": 32,
                "dma.ports": 2,
                "dma.burst": 16,
            },
        }
    ),
    "wide bus": _BASE.override(
        {
            **{
                "name": "wide",
                "conv.pixels": 1,
                "conv.ic": 14,
                "conv.oc": 10,
                "conv.drain": 1,
                "dwc.pixels": 2,
            },
            **{"dwc.channels": 6, "dwc.taps": 9, "dwc.drain": 1, "vec.pixels": 1, "vec.sums": 128},
            **{
                "maps.kib": 112,
                "weights.kib": 70,
                "weights.depthwise_kib": 32,
                "dma.bits": 512,
                "dma.ports": 1,
            },
            **{"rounding": ("f32", "fix16")},
        }
    ),
}
