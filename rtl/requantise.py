"""Requantise: accumulator and scale word to int8, one value a cycle, equal to `ir.requant` in every bit.

All modes are one datapath, in two's complement throughout:

1. *Normalise*: the value goes left until sign and first bit differ. In mode f32 it is then rounded to 24 bits, ties to
   even, as a conversion to float would; the other modes keep every bit.
2. *Multiply* by a significand of 24 bits: f32 that of the word, fix16 its multiplier, shift and sums a one.
3. *Round*: after steps 1 and 2 the product's first bit stands in one of two places, so the 24 bits that a float product
   keeps do too, and its integer part begins at most nine places below. What the places below it say about the
   rounding does not need the 24-bit product itself. Half way between two integers is a float, and an even one (there
   are a dozen zeros after the half). So a product becomes exactly half way if it is no further away than half of its
   last place. Of half way, even integers stay and odd ones go up. Hence:

       up = whole is odd  ?  product >= half - ulp/2  :  product > half + ulp/2

   The other modes are the same with ulp = 0; ties upward is ``product >= half``.
4. *Range*: zero point and clamp.

A negative value obeys the same rules: ties to even and distances from half are symmetric.
"""

from __future__ import annotations

from collections.abc import Collection

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out

from ..ir.latency import REQUANTISE
from ..ir.requant import MODES, RoundingMode

__all__ = ["Requantise"]

_WHOLE = 10
"""Bits of the integer part that are kept: -512..511, which no zero point brings back into int8 from outside."""
_BELOW = 17
"""Bits of the value that the first of the two multipliers takes, unsigned: its narrow port has 18, signed."""


class Requantise(Component):
    """One requantiser. Latency `REQUANTISE`, a value every cycle, no back-pressure, no reset.

    Parameters
    ----------
    modes : rounding modes that are built
    bits : 32 or 34
        Bits of `value`: 32 for accumulators, 34 for the sums of VEC ADD.

    Members
    -------
    value : signed(bits), in
        An int32; with `raw` all bits.
    word : 32, in
        Scale word of `ir.requant.encode_scale`. A fix16 multiplier without its bit 15 counts as zero.
    mode : 2, in
        0 f32, 1 fix16, 2 shift.
    raw : 1, in
        The value is only shifted right by ``word[0:6]``: ties to even, in mode shift up.
    zd, lo, hi : signed(8), in
        Zero point and range, ``lo <= hi``.
    result : signed(8), out

    All inputs belong to one cycle.
    """

    def __init__(self, modes: Collection[RoundingMode] = MODES, bits: int = 34) -> None:
        assert REQUANTISE == 8
        assert bits in {32, 34}
        assert modes
        self.modes = tuple(mode for mode in MODES if mode in modes)
        self.bits = bits
        super().__init__(
            {
                "value": In(signed(bits)),
                "word": In(32),
                "mode": In(2),
                "raw": In(1),
                **{name: In(signed(8)) for name in ("zd", "lo", "hi")},
                "result": Out(signed(8)),
            }
        )

    @property
    def module_name(self) -> str:
        return f"requantise{self.bits}_{'_'.join(self.modes)}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        whole, up = self._shifted(m) if self.modes == ("shift",) else self._scaled(m)
        self._ranged(m, whole, up)
        return m

    def _scaled(self, m: Module) -> tuple[Signal, Signal]:
        """Integer part and rounding of the scaled value, seven cycles after the inputs."""
        bits, top = self.bits, self.bits - 1
        floats = "f32" in self.modes
        significand_bits = 24 if floats else 16
        n = bits + significand_bits

        # What the mode means. Cycle 0.
        f32 = ~self.raw & self._is("f32")
        fix16 = ~self.raw & self._is("fix16")
        upward = self._is("shift")
        one = 1 << (significand_bits - 1)
        significand = Mux(fix16, Cat(Const(0, significand_bits - 16), self.word[:16]), one)
        field = Mux(fix16, self.word[16:22], self.word[:6])
        if floats:
            significand = Mux(f32, Cat(self.word[:23], 1), significand)
            field = Mux(f32, self.word[23:31], field)
        significand3 = _later(m, significand, 3, "significand")
        field1 = _later(m, field, 1, "field")
        f32_1, fix16_1 = _later(m, f32, 1, "f32_"), _later(m, fix16, 1, "fix16_")
        f32_2 = _later(m, f32_1, 1, "f32__")
        none3 = _later(m, fix16 & ~self.word[15], 3, "none")
        # The product has its integer point `places` from the right without the normalisation: 150 - exponent in f32.
        # `base` counts from the point that leaves `_WHOLE` bits in front of it.
        base = Mux(fix16_1, field1 + (significand_bits - 16), field1 + (significand_bits - 1)) + (_WHOLE - n)
        if floats:
            base = Mux(f32_1, 150 + _WHOLE - n - field1, base)
        base3 = _later(m, base, 2, "base", signed(10))

        # Normalise by 8s, 2s and 1s. Cycles 0 to 2.
        x1, by8 = _normalised(m, self.value, 8, "x1")
        x2, by2 = _normalised(m, x1, 2, "x2")
        by2_8 = _later(m, by8, 1, "by8_")
        by1 = x2[top] == x2[top - 1]
        y = Signal(signed(bits))
        m.d.comb += y.eq(Mux(by1, x2 << 1, x2))
        places = Cat(by1, by2, by2_8)
        if (
            bits > 33
        ):  # 0, 1, -1 and -2 have gone 31 places but would go one further: two bits are all they have
            again = by1 & (x2[top - 1] == x2[top - 2])
            z = Signal(signed(bits))
            m.d.comb += z.eq(
                Cat(y[: top - 2], y[top - 2] & ~again, Mux(again, y[top - 2], y[top - 1]), y[top])
            )
            y, places = z, places + again
        places3 = _later(m, places, 1, "places", 6)
        operand = Signal(signed(bits + floats), reset_less=True)
        if floats:
            last = bits - 25
            even = f32_2 & y[last - 1] & (y[: last - 1].any() | y[last])
            kept = Signal(signed(26))
            m.d.comb += kept.eq(y[last:].as_signed() + even)
            m.d.sync += operand.eq(Cat(Mux(f32_2, 0, y[:last]), kept))
        else:
            m.d.sync += operand.eq(y)

        # Two products, the second one cycle later, and their sum. Cycles 3 to 5.
        low, low5 = (Signal(significand_bits + _BELOW, reset_less=True, name=f"low{i}") for i in (4, 5))
        above4 = _later(m, operand[_BELOW:], 1, "above", signed(bits + floats - _BELOW))
        significand4 = _later(m, significand3, 1, "significand3_")
        high = Signal(signed(n + floats - _BELOW), reset_less=True)
        product = Signal(signed(n - _BELOW), reset_less=True)
        sticky = Signal(reset_less=True)
        m.d.sync += [
            low.eq(operand[:_BELOW] * significand3),
            low5.eq(low),
            high.eq(above4 * significand4),
            product.eq(high + (low5 >> _BELOW)),
            sticky.eq(low5[:_BELOW].any()),
        ]

        # How far the integer point is from where most values have it. Cycles 3 to 5.
        amount4 = Signal(signed(10), reset_less=True)
        nothing4, nothing5, over5 = (
            Signal(reset_less=True, name=name) for name in ("nothing4", "nothing5", "over5")
        )
        amount5, amount6 = (Signal(4, reset_less=True, name=f"amount{i}") for i in (5, 6))
        fraction6 = Signal(_WHOLE - 1, reset_less=True)
        m.d.sync += [
            amount4.eq(base3 + places3),
            nothing4.eq(none3 | ~operand[top - 1 :].any()),
            nothing5.eq(nothing4 | (amount4 >= _WHOLE)),
            over5.eq(~nothing4 & (amount4 < 0)),
            amount5.eq(amount4),
            amount6.eq(amount5),
            fraction6.eq(Cat(amount5 > i for i in range(_WHOLE - 1))),
        ]
        nothing6, over6 = _later(m, nothing5, 1, "nothing5_"), _later(m, over5, 1, "over5_")

        # Round. Cycle 6. `product` lacks the lowest bits of the product, which are in `sticky`.
        at = n - 1 - _WHOLE - _BELOW
        window = Signal(signed(_WHOLE + 1))
        m.d.comb += window.eq(product[at:].as_signed() >> amount6)
        half, odd, edge = window[0], window[1], product[at:-2]
        any_one, all_one = (edge & fraction6).any(), (edge | ~fraction6).all()
        upward6 = _later(m, upward, 6, "upward")
        above, below = Signal(), Signal()  # beyond half by more than ulp/2; short of half by ulp/2 at most
        if floats:
            f32_6 = _later(m, f32_2, 4, "f32_6_")
            middle, g, h = product[at - 14 : at], product[at - 15], product[at - 16]
            s = product[: at - 16].any() | sticky
            large = product[-1] ^ product[-2]
            any_one, all_one = any_one | middle.any(), all_one & middle.all()
            m.d.comb += [
                above.eq(upward6 | Mux(f32_6, Mux(large, g & (h | s), g | (h & s)), g | h | s)),
                below.eq(f32_6 & g & (large | h)),
            ]
        else:
            m.d.comb += above.eq(upward6 | product[:at].any() | sticky)
        whole, up = Signal(signed(_WHOLE), reset_less=True), Signal(reset_less=True)
        sign = product[-1]
        m.d.sync += [
            whole.eq(Mux(over6, _farthest(sign), Mux(nothing6, 0, window[1:].as_signed()))),
            up.eq(~over6 & ~nothing6 & Mux(odd, half | (all_one & below), half & (any_one | above))),
        ]
        return whole, up

    def _shifted(self, m: Module) -> tuple[Signal, Signal]:
        """The same where mode shift is the only one: by 16s, 4s and 1s, and no multiplier."""
        shift1, shift2 = (_later(m, self.word[:6], i, f"shift{i}_") for i in (1, 2))
        x1, spill1 = _right(m, Cat(0, self.value).as_signed(), self.word[4:6], 16, _WHOLE + 16, "x1")
        x2, spill2 = _right(m, x1, shift1[2:4], 4, _WHOLE + 4, "x2")
        x3, spill3 = _right(m, x2, shift2[:2], 1, _WHOLE + 1, "x3")
        over3 = spill3 | _later(m, spill2, 1, "spill2_") | _later(m, spill1, 2, "spill1_")
        sign3 = _later(m, self.value[-1], 3, "sign")
        whole = Mux(over3, _farthest(sign3), x3[1:].as_signed())
        return _later(m, whole, 4, "whole", signed(_WHOLE)), _later(m, ~over3 & x3[0], 4, "up")

    def _ranged(self, m: Module, whole: Signal, up: Signal) -> None:
        """Zero point and clamp: three sums side by side with `up` as the carry in, then a choice. Cycle 7."""
        zd6, lo6, hi6 = (_later(m, getattr(self, n), 6, n, signed(8)) for n in ("zd", "lo", "hi"))
        zd7, lo7, hi7 = (
            _later(m, x, 1, f"{n}6_", signed(8)) for x, n in ((zd6, "zd"), (lo6, "lo"), (hi6, "hi"))
        )
        least, most = Signal(signed(10), reset_less=True), Signal(signed(10), reset_less=True)
        m.d.sync += [least.eq(lo6 - zd6 - 1), most.eq(hi6 - zd6)]

        def plus(addend: Value) -> Value:
            """``whole + up + addend``"""
            return (Cat(up, whole).as_signed() + Cat(1, addend).as_signed()) >> 1

        shifted, too_small, too_large = Signal(signed(11)), Signal(), Signal()
        m.d.comb += [
            shifted.eq(plus(zd7)),
            too_small.eq(plus(~least) < 0),  # whole + up <= least
            too_large.eq(plus(~most) >= 0),  # whole + up > most
        ]
        m.d.sync += self.result.eq(Mux(too_large, hi7, Mux(too_small, lo7, shifted[:8].as_signed())))

    def _is(self, mode: RoundingMode) -> Value:
        if mode not in self.modes:
            return Const(0)
        return Const(1) if len(self.modes) == 1 else self.mode == MODES.index(mode)


def _later(m: Module, value: Value | Signal, cycles: int, name: str, shape: object = None) -> Signal:
    """`value` through registers without reset."""
    for i in range(cycles):
        register = Signal(
            Value.cast(value).shape() if shape is None else shape, name=f"{name}{i + 1}", reset_less=True
        )
        m.d.sync += register.eq(value)
        value = register
    return value


def _same(bits: Value) -> Value:
    return bits.all() | ~bits.any()


def _normalised(m: Module, x: Signal, unit: int, name: str) -> tuple[Signal, Signal]:
    """`x` shifted left by 0 to 3 times `unit` places as long as no bit is lost, and how many times: registered."""
    top = len(x) - 1
    free = [_same(x[top - unit * (i + 1) : top - unit * i + 1]) for i in range(3)]
    times = Signal(2, name=f"{name}_times")
    m.d.comb += times.eq(
        Cat(free[0] & (~free[1] | free[2]), free[0] & free[1]),
    )
    coarse = Signal.like(x, name=f"{name}_coarse")
    m.d.comb += coarse.eq(Mux(times[1], x << 2 * unit, x))
    return (
        _later(m, Mux(times[0], coarse << unit, coarse), 1, name, x.shape()),
        _later(m, times, 1, f"{name}_by"),
    )


def _right(m: Module, x: Value, times: Value, unit: int, keep: int, name: str) -> tuple[Signal, Signal]:
    """`x` shifted right by `times` units, in `keep` bits, and whether it needs more: registered."""
    coarse, y = Signal(signed(len(x)), name=f"{name}_coarse"), Signal(signed(len(x)), name=f"{name}_fine")
    m.d.comb += [
        coarse.eq(Mux(times[1], x >> 2 * unit, x)),
        y.eq(Mux(times[0], coarse >> unit, coarse)),
    ]
    return _later(m, y[:keep].as_signed(), 1, name), _later(m, ~_same(y[keep - 1 :]), 1, f"{name}_spill")


def _farthest(sign: Value) -> Value:
    """The integer part of what is far outside."""
    return Cat((~sign).replicate(_WHOLE - 1), sign).as_signed()
