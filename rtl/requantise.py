"""Requantise: accumulator and scale word to int8, one value a cycle, equal to `ir.requant` in every bit.

All modes are one datapath, in two's complement throughout:

1. *Normalise*: the value goes left until sign and first bit differ. In mode f32 it is then rounded to 24 bits, ties to
   even, as a conversion to float would; the other modes keep every bit.
2. *Multiply* by a significand of 24 bits: f32 that of the word, fix16 its multiplier, shift and sums a one.
3. *Round*: the product's first bit now stands in one of two places, so the 24 bits that a float product keeps do too,
   and its integer part ends at most nine places from the leftmost it can. The 24-bit product itself is not needed:
   half way between two integers is a float, and an even one (a dozen zeros follow the half), so the float product is
   half way exactly if the product is within half of its last place, ulp/2, of it. Then even integers stay and odd
   ones go up:

       up = whole is odd  ?  product >= half - ulp/2  :  product > half + ulp/2

   The other modes are the same with ulp = 0; ties upward is ``product >= half``.
4. *Range*: zero point and clamp.

A negative value obeys the same rules: ties to even and distances from half are symmetric.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Shape, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out

from ..ir.latency import REQUANTISE
from ..ir.requant import MODES, RoundingMode

__all__ = ["Requantise"]

_WHOLE = 10
"""Bits of the integer part that are kept, of which one more says whether they are all: no zero point brings what is
beyond -512..511 back into int8."""
_BELOW = 17
"""Bits of the value that the first of the two multipliers takes, unsigned: its narrow port has 18, signed."""


SHARED = ("mode", "raw", "zd", "lo", "hi")
"""What the requantisers of a word have in common (`row.Row`)."""


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

    All inputs belong to one cycle. What depends on `word`, `mode` and the range alone is the same in requantisers that
    share them, and synthesis keeps it once.

    Resources (Yosys, 7-series, `bits` 32): 2 DSP and 300 LUT with all modes, 240 for each of four that share the word;
    145 and 119, no DSP, for mode shift alone.
    """

    def __init__(self, modes: Collection[RoundingMode] = MODES, bits: int = 34) -> None:
        assert REQUANTISE == 8
        assert bits in {32, 34}
        assert modes
        self.modes = tuple(mode for mode in MODES if mode in modes)
        self.bits = bits
        self.significand_bits = 24 if "f32" in self.modes else 16
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
        whole, up, cycle = self._shifted(m) if self.modes == ("shift",) else self._scaled(m)
        result = self._ranged(m, whole, up, cycle)
        m.d.comb += self.result.eq(_later(m, result, REQUANTISE - cycle - 1, "result_"))
        return m

    def _scaled(self, m: Module) -> tuple[Signal, Value, int]:
        """Integer part and rounding of the scaled value, and how many cycles after the inputs."""
        n = self.bits + self.significand_bits
        f32, fix16 = ~self.raw & self._is("f32"), ~self.raw & self._is("fix16")
        f32_2 = _later(m, f32, 2, "f32_")
        operand3, moved3 = self._normalise(m, f32_2)
        significand3 = _later(m, self._significand(f32, fix16), 3, "significand")
        product6, sticky6 = self._multiply(m, operand3, significand3)
        point3 = _later(m, self._point(m, f32, fix16) + (_WHOLE - n), 2, "point", signed(10))
        none3 = _later(m, fix16 & ~self.word[15], 3, "none")
        place6 = _place(m, point3 + moved3, none3 | ~operand3[self.bits - 2 :].any())
        f32_6, upward6 = _later(m, f32_2, 4, "f32_2_"), _later(m, self._is("shift"), 6, "upward")
        return *self._round(m, product6, sticky6, place6, f32_6, upward6), 7

    def _significand(self, f32: Value, fix16: Value) -> Value:
        """What the value is multiplied by: its first bit is set. Cycle 0."""
        extra = self.significand_bits - 16
        significand = Mux(fix16, Cat(Const(0, extra), self.word[:16]), 1 << (extra + 15))
        return Mux(f32, Cat(self.word[:23], 1), significand) if "f32" in self.modes else significand

    def _point(self, m: Module, f32: Value, fix16: Value) -> Value:
        """Binary places of value times significand: the shift and the significand's own; 150 - exponent. Cycle 1."""
        extra = self.significand_bits - 16
        own = Mux(_later(m, fix16, 1, "fix16_"), extra, extra + 15)
        field = Mux(fix16, self.word[16:22], self.word[:6])
        if "f32" not in self.modes:
            return own + _later(m, field, 1, "field")
        field = _later(m, Mux(f32, self.word[23:31], field), 1, "field")
        f32_1 = _later(m, f32, 1, "f32_here")
        return (
            Mux(f32_1, 151, own) + Mux(f32_1, ~Cat(field, 0), field).as_signed()
        )  # ~exponent: -1 - exponent

    def _normalise(self, m: Module, f32_2: Signal) -> tuple[Signal, Signal]:
        """The value moved left as far as it goes, rounded to 24 bits for f32; how far it was moved. Cycles 0 to 2."""
        top = self.bits - 1
        x1, eights = _left(m, self.value, 8, "x1")
        x2, twos = _left(m, x1, 2, "x2")
        once = x2[top] == x2[top - 1]
        y = Signal(signed(self.bits))
        moved = Cat(once, twos, _later(m, eights, 1, "eights"))
        if self.bits <= 33:
            m.d.comb += y.eq(Mux(once, x2 << 1, x2))
        else:
            # 31 places are all that 33 bits need. Of 34 bits 0, 1, -1 and -2 go one further; by now they are zeros
            # but for their first bits, so that no others need to move.
            again = once & (x2[top - 1] == x2[top - 2])
            first = [x2[top - 3] & ~again, Mux(again, x2[top - 3], x2[top - 2]), x2[top - 1]]
            m.d.comb += y.eq(Mux(once, Cat(0, x2[: top - 3], *first), x2))
            moved += again
        moved3 = _later(m, moved, 1, "moved", 6)
        if "f32" not in self.modes:
            return _later(m, y, 1, "operand"), moved3
        last = self.bits - 25
        # Ties to even, from before the last step: half, what is below it and the last bit wait for nothing but `once`.
        low, (a, b, c) = x2[: last - 2].any(), x2[last - 2 : last + 1]
        up = f32_2 & Mux(once, a & (low | b), b & (low | a | c))
        rounded = Signal(signed(26))
        m.d.comb += rounded.eq(y[last:].as_signed() + up)
        return _later(m, Cat(Mux(f32_2, 0, y[:last]), rounded), 1, "operand", signed(self.bits + 1)), moved3

    def _multiply(self, m: Module, operand3: Signal, significand3: Signal) -> tuple[Signal, Signal]:
        """The product without its lowest bits, and whether any of those is set. Cycles 3 to 5.

        Two DSP blocks with operand, product and sum registers. The second works one cycle later and adds what the
        first hands on, shifted right by `_BELOW`: the blocks' cascade.
        """
        bits = self.significand_bits
        low4, low5 = (Signal(bits + _BELOW, reset_less=True, name=f"low{i}") for i in (4, 5))
        above4 = _later(m, operand3[_BELOW:].as_signed(), 1, "above")
        significand4 = _later(m, significand3, 1, "significand_above")
        high5 = Signal(signed(len(above4) + bits), reset_less=True)
        product6 = Signal(signed(self.bits + bits - _BELOW), reset_less=True)
        sticky6 = Signal(reset_less=True)
        m.d.sync += [
            low4.eq(operand3[:_BELOW] * significand3),
            low5.eq(low4),
            high5.eq(above4 * significand4),
            product6.eq(high5 + (low5 >> _BELOW)),
            sticky6.eq(low5[:_BELOW].any()),
        ]
        return product6, sticky6

    def _round(
        self, m: Module, product: Signal, sticky: Signal, place: _Place, f32: Signal, upward: Signal
    ) -> tuple[Signal, Value]:
        """Integer part, with one bit more in front that is its sign unless it is too large; does it go up. Cycle 6."""
        at = len(product) - 1 - _WHOLE  # of the half, where `amount` is 0
        window = Signal(signed(_WHOLE + 1))
        m.d.comb += window.eq(product[at:].as_signed() >> place.amount)
        half, sign, edge = window[0], product[-1], product[at:-2]
        any_one, all_one = (edge & place.fraction).any(), (edge | ~place.fraction).all()
        beyond = Signal()  # by the last bits alone: past half + ulp/2
        nearly = Signal()  # and not short of half - ulp/2
        if "f32" in self.modes:
            middle, g, h, rest = product[at - 14 : at], product[at - 15], product[at - 16], product[: at - 16]
            any_one, all_one = any_one | middle.any(), all_one & middle.all()
            s = rest.any() | sticky
            large = sign ^ product[-2]  # the first of the two places: ulp/2 is g, else h
            m.d.comb += [
                beyond.eq(upward | Mux(f32, Mux(large, g & (h | s), g | (h & s)), g | h | s)),
                nearly.eq(f32 & Mux(large, g, g & h)),
            ]
        else:
            m.d.comb += beyond.eq(upward | product[:at].any() | sticky)
        whole = Signal(signed(_WHOLE + 2), name="whole", reset_less=True)
        up_if_odd = Signal(name="up_if_odd", reset_less=True)
        up_if_even = Signal(name="up_if_even", reset_less=True)
        m.d.sync += [
            whole.eq(Mux(place.nothing, 0, Cat(window[1:], sign ^ place.over, sign))),
            up_if_odd.eq(half | (all_one & nearly)),
            up_if_even.eq(~place.nothing & half & (any_one | beyond)),
        ]
        return whole, Mux(whole[0], up_if_odd, up_if_even)

    def _shifted(self, m: Module) -> tuple[Signal, Value, int]:
        """The same where mode shift is the only one: by 16s, 4s and 1s, and no multiplier."""
        shift1, shift2 = (_later(m, self.word[:6], i, f"shift{i}_") for i in (1, 2))
        x1, spill1 = _right(m, Cat(0, self.value), self.word[4:6], 16, _WHOLE + 16, "x1")
        x2, spill2 = _right(m, x1, shift1[2:4], 4, _WHOLE + 4, "x2")
        x3, spill3 = _right(m, x2, shift2[:2], 1, _WHOLE + 1, "x3")
        over3 = spill3 | _later(m, spill2, 1, "spill2_") | _later(m, spill1, 2, "spill1_")
        whole = _later(m, Cat(x3[1:], x3[-1] ^ over3, x3[-1]), 1, "whole", signed(_WHOLE + 2))
        return whole, _later(m, x3[0], 1, "up"), 4

    def _ranged(self, m: Module, whole: Signal, up: Value, cycle: int) -> Signal:
        """Zero point and clamp: three sums side by side with `up` as the carry in, then a choice."""
        early = [_later(m, getattr(self, name), cycle - 1, name, signed(8)) for name in ("zd", "lo", "hi")]
        zd, lo, hi = (_later(m, x, 1, f"{x.name}_", signed(8)) for x in early)
        least = _later(m, early[1] - early[0], 1, "least")
        most = _later(m, early[2] - early[0], 1, "most")

        def plus(addend: Value) -> Value:
            """``whole + up + addend``"""
            return (Cat(up, whole).as_signed() + Cat(1, addend).as_signed()) >> 1

        shifted = Signal(8)
        too_small = Signal()
        too_large = Signal()
        m.d.comb += [
            shifted.eq(plus(zd)),
            too_small.eq(plus(~least) < 0),  # whole + up <= least
            too_large.eq(plus(~most) >= 0),  # whole + up > most
        ]
        return _later(m, Mux(too_large, hi, Mux(too_small, lo, shifted)), 1, "ranged", signed(8))

    def _is(self, mode: RoundingMode) -> Value:
        if mode not in self.modes:
            return Const(0)
        return Const(1) if len(self.modes) == 1 else self.mode == MODES.index(mode)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a product's integer part is: `amount` places left of the leftmost it can be."""

    amount: Signal
    fraction: Signal
    """Which of the bits below that leftmost half are below the real one."""
    nothing: Signal
    """The result is 0: the product is, or is below one half."""
    over: Signal
    """The integer part has more than `_WHOLE` bits, unless `nothing`."""


def _place(m: Module, amount: Value, zero: Value) -> _Place:
    """Take `amount` apart. Cycles 3 to 5."""
    amount4, zero4 = _later(m, amount, 1, "amount", signed(10)), _later(m, zero, 1, "zero")
    amount5, amount6 = (Signal(4, name=f"amount{i}", reset_less=True) for i in (5, 6))
    m.d.sync += [amount5.eq(amount4), amount6.eq(amount5)]
    return _Place(
        amount6,
        _later(m, Cat(amount5 > i for i in range(_WHOLE - 1)), 1, "fraction"),
        _later(m, zero4 | (amount4 >= 16), 2, "nothing"),  # 10 to 15 come to 0 by themselves
        _later(m, amount4 < 0, 2, "over"),
    )


def _later(m: Module, value: Value, cycles: int, name: str, shape: Shape | int | None = None) -> Signal:
    """`value` through registers without reset."""
    for i in range(cycles):
        register = Signal(value.shape() if shape is None else shape, name=f"{name}{i + 1}", reset_less=True)
        m.d.sync += register.eq(value)
        value = register
    return value


def _same(bits: Value) -> Value:
    return bits.all() | ~bits.any()


def _chosen(number: Value, of: list[Value]) -> Value:
    """One of four."""
    return Mux(number[1], Mux(number[0], of[3], of[2]), Mux(number[0], of[1], of[0]))


def _left(m: Module, x: Signal, unit: int, name: str) -> tuple[Signal, Signal]:
    """`x` shifted left by 0 to 3 units as long as no bit is lost, and by how many: registered."""
    top = len(x) - 1
    free = [_same(x[top - unit * (i + 1) : top - unit * i + 1]) for i in range(3)]
    times = Signal(2, name=f"{name}_times")
    m.d.comb += times.eq(Cat(free[0] & (~free[1] | free[2]), free[0] & free[1]))
    moved = _chosen(times, [x << unit * i for i in range(4)])
    return _later(m, moved, 1, name, x.shape()), _later(m, times, 1, f"{name}_by")


def _right(m: Module, x: Value, times: Value, unit: int, keep: int, name: str) -> tuple[Signal, Signal]:
    """`x` shifted right by `times` units, its sign and `keep` - 1 bits; does it need more: registered."""
    wide = Cat(x, x[-1].replicate(3 * unit + keep))
    y = _chosen(times, [wide[i * unit : i * unit + keep - 1] for i in range(4)])
    free = [_same(x[min(keep - 1 + i * unit, len(x) - 1) : keep + (i + 1) * unit]) for i in range(4)]
    fits = _chosen(times, [Cat(free[i:]).all() for i in range(4)])
    return _later(m, Cat(y, x[-1]), 1, name, signed(keep)), _later(m, ~fits, 1, f"{name}_spill")
