"""Arithmetic of one lane of one pixel of VEC: bytes to the sum that is requantised."""

from __future__ import annotations

from amaranth.hdl import Module, Mux, Signal, signed
from amaranth.lib.wiring import Component, In, Out

__all__ = ["ACROSS_BITS", "SHARED", "SUM_BITS", "Across", "VecLane"]

SUM_BITS = 34
"""Two products of 9 x 25 bits, of which neither factor is at its lowest: |sum| <= 2 * 255 * 2^24 < 2^33."""
ACROSS_BITS = 14
"""Up to 32 differences of 9 bits."""


SHARED = (
    *("za", "zb", "fill", "outside", "factor", "factor_b", "by_b"),
    *("of_taps", "of_pair", "maximum", "start", "take"),
)
"""What the lanes of a pixel have in common (`row.Row`)."""


class VecLane(Component):
    """Differences, two products, sum: one multiplier each for ``a`` and ``b``, shared by all functions. Latency 5.

    ========  =========================================  ==========================================
    stage 0   bytes `a` and `b`                          difference A, or `fill` where `outside`
    stage 1   A, B                                       factors: A times `factor`, B, or -1; B times `factor_b`
    stage 2   factors                                    products
    stage 3   products                                   the same again (the multiplier's own output register)
    stage 4   products                                   sum
    stage 5   `sum`
    ========  =========================================  ==========================================

    Members
    -------
    a, b, za, zb, outside, fill : in, stage 0
    tap : out, stage 1
        A, for sums across pixels.
    factor, factor_b : in, stage 1
    by_b : in, stage 1
        The factor of A is B.
    flip : in, stage 1
        The factor of a negative A is -1.
    across : in, stage 4
        What `tap` has become meanwhile.
    of_taps, of_pair, maximum : in, stage 4
        Take `across` instead of the first product; add the second product; keep the larger instead of the sum.
    start, start_from : in, stage 4
        Begin with `start_from` instead of going on with the sum.
    take : in, stage 4
        The sum changes.
    sum, below_zero : out, stage 5
        Sum; and whether the last A was negative.
    """

    def __init__(self) -> None:
        super().__init__(
            {
                **{name: In(signed(8)) for name in ("a", "b", "za", "zb", "fill")},
                "outside": In(1),
                "tap": Out(signed(9)),
                "factor": In(signed(25)),
                "factor_b": In(signed(25)),
                "by_b": In(1),
                "flip": In(1),
                "across": In(signed(ACROSS_BITS)),
                **{name: In(1) for name in ("of_taps", "of_pair", "maximum", "start", "take")},
                "start_from": In(signed(32)),
                "sum": Out(signed(SUM_BITS)),
                "below_zero": Out(1),
            }
        )

    @property
    def module_name(self) -> str:
        return "vec_lane"

    def elaborate(self, platform: object) -> Module:
        m = Module()

        def register(bits: int, name: str) -> Signal:
            return Signal(signed(bits), name=name, reset_less=True)

        a1, b1, a2, b2 = (register(9, n) for n in ("a_1", "b_1", "a_2", "b_2"))
        factor, factor_b = register(25, "factor_2"), register(25, "factor_b_2")
        product3, other3, product4, other4 = (
            register(34, n) for n in ("product_3", "other_3", "product_4", "other_4")
        )
        total = register(SUM_BITS, "total")
        signs = [Signal(name=f"below_zero_{k}", reset_less=True) for k in range(2, 6)]
        m.d.sync += [
            a1.eq(Mux(self.outside, self.fill, self.a - self.za)),
            b1.eq(self.b - self.zb),
            *(a2.eq(a1), b2.eq(b1), factor_b.eq(self.factor_b)),
            factor.eq(Mux(self.by_b, b1, Mux(self.flip & (a1 < 0), -1, self.factor))),
            *(product3.eq(a2 * factor), other3.eq(b2 * factor_b)),
            *(product4.eq(product3), other4.eq(other3)),
            *(later.eq(now) for now, later in zip([a1 < 0, *signs], signs, strict=False)),
        ]
        term, onto = Signal(signed(34)), Signal(signed(SUM_BITS))
        m.d.comb += [
            term.eq(Mux(self.of_taps, self.across, product4)),
            onto.eq(Mux(self.of_pair, other4, Mux(self.start, self.start_from, total))),
            *(self.tap.eq(a1), self.sum.eq(total), self.below_zero.eq(signs[-1])),
        ]
        larger = Mux(self.across > onto[:9].as_signed(), self.across, onto[:9].as_signed())
        with m.If(self.take):
            m.d.sync += total.eq(Mux(self.maximum, larger, term + onto))
        return m


class Across(Component):
    """Sum, or largest, of one lane over the pixels, in three registered levels of pairs. Latency 3.

    Members
    -------
    maximum : in, stages 0 to 2
        Constant while values of one instruction are on their way from stage to stage (`maximum0` .. `maximum2`).
    tap0, tap1, ... : in
    total : out
    """

    def __init__(self, pixels: int) -> None:
        self.pixels = pixels
        super().__init__(
            {
                **{f"maximum{k}": In(1) for k in range(3)},
                **{f"tap{p}": In(signed(9)) for p in range(pixels)},
                "total": Out(signed(ACROSS_BITS)),
            }
        )

    @property
    def module_name(self) -> str:
        return f"vec_across_{self.pixels}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        values = [getattr(self, f"tap{p}") for p in range(self.pixels)]
        halvings = (self.pixels - 1).bit_length()
        for stage in range(3):
            maximum = getattr(self, f"maximum{stage}")
            for _ in range((halvings + 2 - stage) // 3):
                pairs = []
                for one, two in zip(values[::2], values[1::2], strict=False):
                    pairs.append(Mux(maximum, Mux(one > two, one, two), one + two))
                values = pairs + values[len(values) & ~1 :]
            kept = [
                Signal(signed(ACROSS_BITS), name=f"level{stage}_{k}", reset_less=True)
                for k in range(len(values))
            ]
            m.d.sync += [k.eq(v) for k, v in zip(kept, values, strict=True)]
            values = list(kept)
        m.d.comb += self.total.eq(values[0])
        return m
