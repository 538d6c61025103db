"""Dot products of int8 vectors in DSP blocks: two at a time, with one operand in common.

The array multiplies a pixel with the weights of two output channels, the depthwise engine a weight with two pixels. Where
the DSP block's wide port is wide enough, one block does both products: the two operands are packed into one number

    packed = two * 2^F + one        packed * shared = (two * shared) * 2^F + one * shared

and a chain of blocks, each adding its product to that of the block before (the cascade PCIN), sums up both at once. At
the chain's end, the low F bits say what the sum of `one` is as long as it fits into them, and what is left is the sum of `two`.

A chain has up to 8 products, whose low sum needs more bits than F: bits k of the high sum are then computed
beside, modulo 2^k, from the lowest k bits of its operands (`residue`: a few LUTs a product). Bits F .. F + k - 1 of the total
less this residue are the low sum's upper bits. So every int8 is exact, also -128 times -128.

=========== ==== ======================= ======================================================================
style       F    products a DSP block    the low part of `packed`
=========== ==== ======================= ======================================================================
plain       --   1                       two chains of single products
dsp48e2     18   2 (27 x 18 bit port)    `one`, signed; k = 1 for chains of 8, otherwise 0
dsp48e1     17   2 (25 x 18 bit port)    ``one + 128``, unsigned, since ``two * 2^17 - 128`` would need 26 bits; 128 times
                                         the sum of `shared` is taken off again; k = 2 above 4 products, 1 above 2
=========== ==== ======================= ======================================================================

All styles give the same bits after the same time, `dot_product(n)` of `ir.latency`.

The parts, and how they are put together (weights or pixels may be either side):

- `SharedOperand(n, mac)`: registers of the operand in common, one for all dot products that it goes to.
- `PairedOperand(n, mac)`: registers of two operands, packed; one for all shared operands that it meets.
- `PairedDot(n, mac)`: both dot products of a shared and a paired operand.

Lanes of a vector lie behind each other, lane 0 in the low byte. The lane at place j of its chain is registered j cycles
later, as its block adds to what the block before gives in the cycle before: that is done in the operand registers.
Where there is nothing to pair, leave `two` zero: synthesis drops that half.
"""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, signed
from amaranth.lib.wiring import Component, In, Out

from ..ir.latency import dot_product, product_chains
from .delay import delay

__all__ = ["MAC_STYLES", "PairedDot", "PairedOperand", "SharedOperand", "sum_bits"]

MAC_STYLES = ("plain", "dsp48e2", "dsp48e1")
_PORT = {"plain": 16, "dsp48e2": 27, "dsp48e1": 25}
"""Bits of a packed pair. UG579 (DSP48E2): 27 x 18 multiplier; UG479 (DSP48E1): 25 x 18."""
_FIELD = {"dsp48e2": 18, "dsp48e1": 17}
"""Bits below `two`: what its 8 leave of the port, and no more than the low sum can use."""


def sum_bits(n: int) -> int:
    """Bits of a sum of n products of two int8: n * 2^14 is the largest.

    >>> sum_bits(1), sum_bits(16)
    (16, 20)
    """
    return (n << 14).bit_length() + 1


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a lane stands: its chain, and cycles by which its operands are later than those of lane 0."""

    chain: int
    late: int


def _places(n: int) -> list[_Place]:
    """Chains end together, so a shorter one begins later."""
    chains, length = product_chains(n)
    out: list[_Place] = []
    for chain in range(chains):
        own = (n - len(out) + chains - chain - 1) // (chains - chain)
        out += [_Place(chain, length - own + j) for j in range(own)]
    return out


def _residue_bits(n: int, mac: str) -> int:
    """Bits that the low sum of a chain needs beyond its field.

    >>> [_residue_bits(n, "dsp48e2") for n in (7, 8)], [_residue_bits(n, "dsp48e1") for n in (2, 4, 8)]
    ([0, 1], [0, 1, 2])
    """
    low, high = {"plain": (0, 0), "dsp48e2": (-128 * 127, 128 * 128), "dsp48e1": (-128 * 255, 127 * 255)}[mac]
    bits = _FIELD.get(mac, 0)
    while n * low < -1 << (bits - 1) or n * high > (1 << (bits - 1)) - 1:
        if mac == "plain":
            return 0
        bits += 1
    return bits - _FIELD.get(mac, 0)


def _offset_bits(n: int) -> int:
    """Bits of a sum of the shared operands of a chain."""
    _, length = product_chains(n)
    return (length << 7).bit_length() + 1


class SharedOperand(Component):
    """Registers of the operand that dot products have in common.

    Members: `word` in, n signed bytes; `operand` out, byte i `1 + late` cycles later; for dsp48e1 also `offsets` out, the
    sum of each chain's bytes, when `PairedDot` splits its totals.
    """

    word: Signal
    operand: Signal
    offsets: Signal

    def __init__(self, n: int, mac: str = "plain") -> None:
        assert mac in MAC_STYLES
        assert n >= 1
        self.n, self.mac = n, mac
        ports = {"word": In(8 * n), "operand": Out(8 * n)}
        if mac == "dsp48e1":
            ports["offsets"] = Out(_offset_bits(n) * product_chains(n)[0])
        super().__init__(ports)

    @property
    def module_name(self) -> str:
        return f"shared_operand_{self.n}" + ("_sum" if self.mac == "dsp48e1" else "")

    def elaborate(self, platform: object) -> Module:
        m = Module()
        places = _places(self.n)
        lanes = [
            delay(m, self.word.word_select(i, 8), 1 + place.late, f"lane{i}")
            for i, place in enumerate(places)
        ]
        m.d.comb += self.operand.eq(Cat(lanes))
        if self.mac == "dsp48e1":
            sums: dict[int, Value] = {}
            for i, place in enumerate(places):  # each chain sums up along its way
                total = Signal(signed(_offset_bits(self.n)), name=f"sum{i}", reset_less=True)
                m.d.sync += total.eq(lanes[i].as_signed() + sums.get(place.chain, Const(0)))
                sums[place.chain] = total
            m.d.comb += self.offsets.eq(Cat(delay(m, s, 1, f"offset{c}") for c, s in sums.items()))
        return m


class PairedOperand(Component):
    """Registers of two operands, packed.

    Members: `one`, `two` in, n signed bytes each; `operand` out, n packed pairs, pair i `1 + late` cycles later.
    """

    one: Signal
    two: Signal
    operand: Signal

    def __init__(self, n: int, mac: str = "plain") -> None:
        assert mac in MAC_STYLES
        assert n >= 1
        self.n, self.mac = n, mac
        super().__init__({"one": In(8 * n), "two": In(8 * n), "operand": Out(_PORT[mac] * n)})

    @property
    def module_name(self) -> str:
        return f"paired_operand_{self.n}_{self.mac}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        packed = []
        for i, place in enumerate(_places(self.n)):
            one = delay(m, self.one.word_select(i, 8), place.late, f"one{i}")
            two = delay(m, self.two.word_select(i, 8), place.late, f"two{i}")
            pair = Signal(_PORT[self.mac], name=f"pair{i}", reset_less=True)
            if self.mac == "dsp48e2":  # a negative low part borrows one from above
                m.d.sync += pair.eq(Cat(one, one[7].replicate(10), two.as_signed() - one[7]))
            elif self.mac == "dsp48e1":
                m.d.sync += pair.eq(Cat(one[:7], ~one[7], Const(0, 9), two))
            else:
                m.d.sync += pair.eq(Cat(one, two))
            packed.append(pair)
        m.d.comb += self.operand.eq(Cat(packed))
        return m


class PairedDot(Component):
    """Dot products of a shared operand with both operands of a pair.

    Members: `shared` and `paired` in, the operands of a `SharedOperand` and a `PairedOperand`, for dsp48e1 also `offsets`;
    `one`, `two` out, signed: the sums, `dot_product(n)` cycles after the operands' words.

    Timing: operand register (outside), product, sum, the rest of the chain, split, adder tree over the chains.
    """

    shared: Signal
    paired: Signal
    offsets: Signal
    one: Signal
    two: Signal

    def __init__(self, n: int, mac: str = "plain") -> None:
        assert mac in MAC_STYLES
        assert n >= 1
        self.n, self.mac = n, mac
        ports = {"shared": In(8 * n), "paired": In(_PORT[mac] * n)}
        if mac == "dsp48e1":
            ports["offsets"] = In(_offset_bits(n) * product_chains(n)[0])
        super().__init__(ports | {name: Out(signed(sum_bits(n))) for name in ("one", "two")})

    @property
    def module_name(self) -> str:
        return f"paired_dot_{self.n}_{self.mac}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        chains, length = product_chains(self.n)
        lanes: list[list[int]] = [[] for _ in range(chains)]
        for i, place in enumerate(_places(self.n)):
            lanes[place.chain].append(i)
        parts = [
            self._plain(m, c, own) if self.mac == "plain" else self._packed(m, c, own)
            for c, own in enumerate(lanes)
        ]
        levels = 0
        for name, out in (("one", self.one), ("two", self.two)):
            terms = [part[name == "two"] for part in parts]
            levels = 0
            while len(terms) > 1:
                levels += 1
                sums = []
                for i in range(0, len(terms), 2):
                    total = Signal(
                        signed(sum_bits(min(self.n, length << levels))),
                        name=f"{name}_level{levels}_{i // 2}",
                        reset_less=True,
                    )
                    m.d.sync += total.eq(sum(terms[i + 1 : i + 2], terms[i]))
                    sums.append(total)
                terms = sums
            m.d.comb += out.eq(terms[0])
        assert 3 + (length - 1) + 1 + levels == dot_product(self.n)
        return m

    def _plain(self, m: Module, chain: int, lanes: list[int]) -> list[Value]:
        """Two sums of single products."""
        out = []
        for j, name in enumerate(("one", "two")):
            total: Value = Const(0)
            for at, i in enumerate(lanes):
                x = self.shared.word_select(i, 8).as_signed()
                w = self.paired.word_select(i, 16)[8 * j : 8 * j + 8].as_signed()
                total = _multiply_add(m, x, w, total, sum_bits(at + 1), f"{name}{i}")
            out.append(delay(m, total, 1, f"{name}_chain{chain}").as_signed())
        return out

    def _packed(self, m: Module, chain: int, lanes: list[int]) -> list[Value]:
        """The same of packed products."""
        port, field, k = _PORT[self.mac], _FIELD[self.mac], _residue_bits(len(lanes), self.mac)
        total: Value = Const(0)
        residue: Value = Const(0, k)
        for at, i in enumerate(lanes):
            x = self.shared.word_select(i, 8).as_signed()
            pair = self.paired.word_select(i, port).as_signed()
            total = _multiply_add(m, x, pair, total, field + sum_bits(at + 1), f"pair{i}")
            if k:
                low = pair[field : field + k]  # of `two`; in dsp48e2 less the borrow
                two = low ^ pair[field - 1] if self.mac == "dsp48e2" else low
                residue_next = Signal(k, name=f"residue{i}", reset_less=True)
                m.d.sync += residue_next.eq(residue + x[:k] * two)
                residue = residue_next
        residue = delay(m, residue, 1, f"residue_chain{chain}")

        # Split: the low sum's bits beyond its field, then what it adds to, or borrows from, the high sum.
        above = Signal(k, name=f"above{chain}")
        m.d.comb += above.eq(total[field : field + k] - residue)
        low = Cat(total[:field], above).as_signed()
        carried = above.as_signed() if k else Mux(total[field - 1], -1, 0)
        one, two = (
            Signal(signed(sum_bits(len(lanes))), name=f"{name}_chain{chain}", reset_less=True)
            for name in ("one", "two")
        )
        if self.mac == "dsp48e1":
            offset = self.offsets.word_select(chain, _offset_bits(self.n)).as_signed()
            m.d.sync += one.eq(Cat(low[:7], low[7:].as_signed() - offset).as_signed())
        else:
            m.d.sync += one.eq(low)
        m.d.sync += two.eq(total[field:].as_signed() - carried)
        return [one, two]


def _multiply_add(m: Module, x: Value, w: Value, before: Value, bits: int, name: str) -> Signal:
    """``x * w + before`` as a DSP block does it: product register, sum register."""
    product = Signal(signed(len(x) + len(w)), name=f"product_{name}", reset_less=True)
    total = Signal(signed(bits), name=f"total_{name}", reset_less=True)
    m.d.sync += [product.eq(x * w), total.eq(product + before)]
    return total
