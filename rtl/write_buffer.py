"""Store and forward for one write port: bursts are gathered as rows, and leave as AXI beats."""

from __future__ import annotations

from amaranth.hdl import Array, Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import Component, In, Out, PureInterface

from ..ir.arch import Arch
from .axi import ADDRESS_BITS, CACHE, INCR, PROTECTION, size_of, write_channels
from .delay import delay

__all__ = ["MOST_BITS", "ROW_TO_BEAT", "WriteBuffer"]

MOST_BITS = 12
"""Bytes of a burst, less one: at most 4096 bytes (AXI4)."""
ROW_TO_BEAT = 7
"""A row at the buffer to its first beat on the bus: write, read, output register, beat of the row, two levels of byte
rotation, bus register."""
_RIPE = 3
"""Ripe burst to the row address of its first beat: count, next burst, this burst."""
_SMALL = 64
"""Rows up to which the buffer is LUT RAM."""


class WriteBuffer(Component):
    """Buffer and AXI4 write channels of one port.

    Rows of `arch.stream_bytes` come one chunk each, the first byte of a burst in byte 0 of its first row; a beat of
    the port is a part of such a row, moved up by ``address % beat_bytes``: rotated, and where it wraps joined with the
    beat before. Buffer and queue have room for `dma.outstanding` bursts: nothing here ever holds up the gathering.

    Parameters
    ----------
    lead : int
        Cycles from `push` to `store` of the burst's last row.

    Members
    -------
    store, row : In
        A row.
    push, address, most : In
        A burst, when its last row is on its way: address, and bytes less one.
    axi : Out
        Write channels. The address is on the bus in the cycle after `push`, the first beat `lead` + `ROW_TO_BEAT`
        cycles after it, each unless earlier ones still wait; neither waits for the other.
    completed : Out
        High in the cycle of a response.
    error, error_address, error_response : Out
        High two cycles after a response that is an error, with its burst's address.

    Resources: `stream_bytes` x outstanding x ceil(burst / ports) bytes of RAM, 76 x outstanding bits of LUT RAM twice.
    """

    store: Signal
    row: Signal
    push: Signal
    address: Signal
    most: Signal
    axi: PureInterface
    completed: Signal
    error: Signal
    error_address: Signal
    error_response: Signal

    def __init__(self, arch: Arch, lead: int) -> None:
        assert arch.dma.burst * arch.beat_bytes <= 1 << MOST_BITS
        self.arch, self.lead = arch, lead
        super().__init__(
            {
                "store": In(1),
                "row": In(8 * arch.stream_bytes),
                "push": In(1),
                "address": In(ADDRESS_BITS),
                "most": In(MOST_BITS),
                "axi": Out(write_channels(arch.dma.bits)),
                "completed": Out(1),
                "error": Out(1),
                "error_address": Out(ADDRESS_BITS),
                "error_response": Out(2),
            }
        )

    @property
    def module_name(self) -> str:
        dma = self.arch.dma
        return f"write_buffer_{dma.ports}x{dma.bits}_{dma.burst}x{dma.outstanding}"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        dma, beat = self.arch.dma, self.arch.beat_bytes
        offset_bits = (beat - 1).bit_length()
        queue_bits = max(1, (dma.outstanding - 1).bit_length())

        # -- the queue: bursts by the order of their push -----------------------------------------------------------
        m.submodules.addresses = addresses = Memory(
            shape=ADDRESS_BITS, depth=1 << queue_bits, init=[], attrs={"ram_style": "distributed"}
        )
        m.submodules.mosts = mosts = Memory(
            shape=MOST_BITS + offset_bits, depth=1 << queue_bits, init=[], attrs={"ram_style": "distributed"}
        )
        pushed = Signal(queue_bits)
        keep_address, keep_most = addresses.write_port(), mosts.write_port()
        m.d.comb += [
            *(keep_address.en.eq(self.push), keep_most.en.eq(self.push)),
            *(keep_address.addr.eq(pushed), keep_most.addr.eq(pushed)),
            keep_address.data.eq(self.address),
            keep_most.data.eq(Cat(self.most, self.address[:offset_bits])),
        ]
        m.d.sync += pushed.eq(pushed + self.push)

        # -- addresses ----------------------------------------------------------------------------------------------
        aw = self.axi.aw
        asked = Signal(queue_bits)  # next to go on the bus
        waiting = Signal(queue_bits + 1)  # pushed, not yet on the bus
        queued_address, queued_most = addresses.read_port(domain="comb"), mosts.read_port(domain="comb")
        next_address, next_most = Signal(ADDRESS_BITS), Signal(MOST_BITS)
        place_free, leaves = Signal(), Signal()
        m.d.comb += [
            *(queued_address.addr.eq(asked), queued_most.addr.eq(asked)),
            next_address.eq(Mux(waiting != 0, queued_address.data, self.address)),
            next_most.eq(Mux(waiting != 0, queued_most.data[:MOST_BITS], self.most)),
            place_free.eq(~aw.valid | aw.ready),
            leaves.eq(place_free & ((waiting != 0) | self.push)),
            *(aw.size.eq(size_of(dma.bits)), aw.burst.eq(INCR), aw.cache.eq(CACHE), aw.prot.eq(PROTECTION)),
        ]
        m.d.sync += [asked.eq(asked + leaves), waiting.eq(waiting + self.push - leaves)]
        address, length, user = (
            Signal.like(s, name=f"aw_{n}", reset_less=True)
            for s, n in ((aw.addr, "addr"), (aw.len, "len"), (aw.user, "user"))
        )
        valid = Signal(name="aw_valid")
        m.d.comb += [aw.valid.eq(valid), aw.addr.eq(address), aw.len.eq(length), aw.user.eq(user)]
        with m.If(place_free):
            m.d.sync += [
                valid.eq(leaves),
                address.eq(next_address),
                length.eq((next_address[:offset_bits] + next_most)[offset_bits:]),
                user.eq(next_most),
            ]

        # -- the burst whose beats are read, and the one after it ---------------------------------------------------
        go = Signal()  # the way from the buffer to the bus moves
        ripe = delay(m, self.push, self.lead + 1 - _RIPE, "ripe", reset=True)
        count = Signal(range(dma.outstanding + 1))  # ripe, not yet in `next`
        sent = Signal(queue_bits)
        sending = mosts.read_port(domain="comb")
        next_valid, next_flush, flush, active, final = (
            Signal(name=n) for n in ("next_valid", "next_flush", "flush", "active", "final")
        )
        next_beats, beats = Signal(8, reset_less=True), Signal(8, reset_less=True)  # less one; those left
        next_offset, offset = Signal(offset_bits, reset_less=True), Signal(offset_bits, reset_less=True)
        next_end, end = Signal(offset_bits, reset_less=True), Signal(offset_bits, reset_less=True)
        first = Signal(reset_less=True)
        load_next, begin = Signal(), Signal()
        last_byte = Signal(MOST_BITS + 1)
        m.d.comb += [
            sending.addr.eq(sent),
            last_byte.eq(sending.data[:MOST_BITS] + sending.data[MOST_BITS:]),
            final.eq(beats == 0),
            begin.eq(go & next_valid & (~active | final)),
            load_next.eq((count != 0) & (~next_valid | begin)),
        ]
        m.d.sync += [count.eq(count + ripe - load_next), sent.eq(sent + load_next)]
        with m.If(load_next):
            m.d.sync += [
                *(next_valid.eq(1), next_offset.eq(sending.data[MOST_BITS:]), next_end.eq(last_byte)),
                next_beats.eq(last_byte[offset_bits:]),
                next_flush.eq(last_byte[offset_bits:] != sending.data[offset_bits:MOST_BITS]),
            ]
        with m.Elif(begin):
            m.d.sync += next_valid.eq(0)
        with m.If(begin):
            m.d.sync += [
                *(active.eq(1), first.eq(1), beats.eq(next_beats), flush.eq(next_flush)),
                *(offset.eq(next_offset), end.eq(next_end)),
            ]
        with m.Elif(go):
            m.d.sync += [beats.eq(beats - 1), first.eq(0), active.eq(active & ~final)]

        # -- the buffer: rows of as many banks as a row has beats; a burst begins a row ------------------------------
        depth = 1 << max(1, (dma.outstanding * -(-dma.burst // dma.ports) - 1).bit_length())
        write_at, read_at = Signal(range(depth)), Signal(range(depth))
        bank = Signal(range(max(2, dma.ports)))
        # The last beat of a burst may hold only what wrapped out of the beat before: `flush`.
        real, row_ends = Signal(), Signal()
        m.d.comb += [
            real.eq(active & ~(flush & final)),
            row_ends.eq((bank == dma.ports - 1) | (beats == flush)),
        ]
        m.d.sync += write_at.eq(write_at + self.store)
        with m.If(go & real):
            m.d.sync += [read_at.eq(read_at + row_ends), bank.eq(Mux(row_ends, 0, bank + 1))]
        outputs = []
        for b in range(dma.ports):
            style = {"ram_style": "distributed" if depth <= _SMALL else "block"}
            m.submodules[f"bank{b}"] = ram = Memory(shape=8 * beat, depth=depth, init=[], attrs=style)
            write, read = ram.write_port(), ram.read_port()
            out = Signal(8 * beat, name=f"output{b}", reset_less=True)
            m.d.comb += [
                *(write.en.eq(self.store), write.addr.eq(write_at)),
                write.data.eq(self.row.word_select(b, 8 * beat)),
                *(read.en.eq(go & real), read.addr.eq(read_at)),
            ]
            with m.If(go):
                m.d.sync += out.eq(read.data)
            outputs.append(out)

        # -- beats: one of the row, rotated up, joined with the one before --------------------------------------------
        def later(value: Value, cycles: int, name: str, reset: bool = False) -> Value:
            for i in range(cycles):
                s = Signal(value.shape(), name=f"{name}_{i + 1}", reset_less=not reset)
                with m.If(go):
                    m.d.sync += s.eq(value)
                value = s
            return value

        chosen = Signal(8 * beat, reset_less=True)
        with m.If(go):
            m.d.sync += chosen.eq(Array(outputs)[later(bank, 2, "bank")] if dma.ports > 1 else outputs[0])
        amount = later(offset, 3, "offset")
        low = offset_bits // 2
        half = _rotated(m, go, chosen, amount[:low], 1, "half")
        amount = later(amount, 1, "offset_late")
        turned = _rotated(m, go, half, amount[low:], 1 << low, "turned")
        before = later(turned, 1, "before")
        shown, begins, ends = (
            later(v, 5, n, True) for v, n in ((active, "shown"), (first, "begins"), (final, "ends"))
        )
        stop = later(end, 4, "stop")
        above, below = Signal(beat, reset_less=True), Signal(beat, reset_less=True)
        early = later(offset, 4, "early")
        with m.If(go):
            m.d.sync += [
                above.eq(Cat(Const(i) >= early for i in range(beat))),
                below.eq(Cat(Const(i) <= stop for i in range(beat))),
            ]
        joined = Cat(Mux(above[i], turned.word_select(i, 8), before.word_select(i, 8)) for i in range(beat))
        strobe = (above | ~begins.replicate(beat)) & (below | ~ends.replicate(beat))
        self._send(m, go, shown, Cat(joined, strobe, ends))
        self._collect(m, addresses, queue_bits)
        return m

    def _send(self, m: Module, go: Signal, shown: Value, beat: Value) -> None:
        """The bus register, and a second one for the beat that is on its way when `ready` falls."""
        w = self.axi.w
        spare_valid, valid = Signal(), Signal(name="w_valid")
        spare = Signal(len(beat), reset_less=True)
        out = Signal(len(beat), name="w_beat", reset_less=True)
        m.d.comb += [
            go.eq(~spare_valid),
            w.valid.eq(valid),
            Cat(w.data, w.strb, w.last).eq(out),
        ]
        with m.If(w.ready | ~valid):
            m.d.sync += [
                out.eq(Mux(spare_valid, spare, beat)),
                valid.eq(spare_valid | shown),
                spare_valid.eq(0),
            ]
        with m.Elif(go & shown):
            m.d.sync += spare_valid.eq(1)
        with m.If(go):
            m.d.sync += spare.eq(beat)

    def _collect(self, m: Module, addresses: Memory, queue_bits: int) -> None:
        """Responses, which come in the order of the bursts."""
        b = self.axi.b
        collected, at = Signal(queue_bits), Signal(queue_bits, reset_less=True)
        fault, response = Signal(), Signal(2, reset_less=True)
        shown, code = Signal(ADDRESS_BITS, name="fault_address", reset_less=True), Signal(2, reset_less=True)
        address = addresses.read_port(domain="comb")
        m.d.comb += [
            *(b.ready.eq(1), self.completed.eq(b.valid), address.addr.eq(at)),
            *(self.error_response.eq(code), self.error_address.eq(shown)),
        ]
        m.d.sync += [
            collected.eq(collected + b.valid),
            *(fault.eq(b.valid & b.resp[1]), response.eq(b.resp), at.eq(collected)),
            *(self.error.eq(fault), code.eq(response), shown.eq(address.data)),
        ]


def _rotated(m: Module, go: Value, word: Value, amount: Value, step: int, name: str) -> Signal:
    """Bytes of `word` moved up by `amount` * `step`, those above the top to the bottom; registered while `go`."""
    out = Signal(len(word), name=name, reset_less=True)
    moved = word
    for i in range(len(amount)):
        moved = Mux(amount[i], moved.rotate_left(8 * step << i), moved)
    with m.If(go):
        m.d.sync += out.eq(moved)
    return out
