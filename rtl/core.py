"""The core: control, engines, memories and registers, wired; and the top of a design with flat bus names."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value
from amaranth.lib.wiring import Component, In, Out, connect, flipped

from ..ir.arch import Arch
from ..ir.isa import Engine
from ..ir.ultraram import in_ultraram, wide_memories
from .axi import lite, read_channels, write_channels
from .counters import Tally
from .dispatch import Dispatch
from .fetch import Fetch
from .hierarchy import place
from .interlock import Interlock, engines
from .memory import MapMemory, WideMemory
from .register_map import BLOCK_BYTES, INTERFACE_VERSION, MAGIC
from .registers import RegisterFile
from .run import RunControl

__all__ = ["Core", "DpuTop", "engine_components"]

_LITE_BITS = (BLOCK_BYTES - 1).bit_length()


def engine_components(arch: Arch, mac: str) -> dict[Engine, Any]:
    """The engines of a machine."""
    from .conv import ConvEngine
    from .dwc import DwcEngine
    from .load import LoadEngine
    from .save import SaveEngine
    from .vec import VecEngine

    found: dict[Engine, Any] = {
        Engine.LOAD: LoadEngine(arch),
        Engine.CONV: ConvEngine(arch, mac),
        Engine.VEC: VecEngine(arch),
        Engine.SAVE: SaveEngine(arch),
    }
    if arch.has_dwc:
        found[Engine.DWC] = DwcEngine(arch, mac)
    return found


class Core(Component):
    """One DPU core.

    Members
    -------
    registers : In(lite(12))
        `register_map.REGISTERS`.
    fetch : Out(read_channels)
        Instructions.
    axi0, axi1, ... : Out
        Read and write channels of the DMA ports, in `read` and `write`.
    irq : Out(1)
        High while an enabled event stands in `IRQ_STATUS`.
    trace_start, trace_done : Out(5)
        A bit an engine (`Engine`): its instruction starts, gives its token, in this cycle.

    Parameters
    ----------
    mac : str
        How products are built: plain, dsp48e2, dsp48e1. All give the same bits in the same cycles.
    uram : int
        UltraRAM that the core may use: `ir.ultraram` says for what.
    """

    def __init__(self, arch: Arch, mac: str = "plain", uram: int = 0) -> None:
        self.arch, self.mac = arch, mac
        self.in_uram = in_ultraram(arch, uram)
        bits = arch.dma.bits
        super().__init__(
            {
                "registers": In(lite(_LITE_BITS)),
                "fetch": Out(read_channels(bits)),
                **{f"read{p}": Out(read_channels(bits)) for p in range(arch.dma.ports)},
                **{f"write{p}": Out(write_channels(bits)) for p in range(arch.dma.ports)},
                "irq": Out(1),
                "trace_start": Out(len(Engine)),
                "trace_done": Out(len(Engine)),
            }
        )

    @property
    def module_name(self) -> str:
        return "dpu_core"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        clear, flush = Signal(), Signal()
        reset = Signal()  # of the compute engines
        m.d.comb += reset.eq(clear | flush)
        registers = place(m, "register_file", RegisterFile())
        run = place(m, "run", RunControl(self.arch))
        fetch = place(m, "fetch_unit", Fetch(self.arch), reset=clear)
        dispatch = place(m, "dispatch", Dispatch(self.arch), reset=clear)
        interlock = place(m, "interlock", Interlock(self.arch), reset=clear)
        parts = {
            e: place(m, e.name.lower(), part, reset=clear if e in {Engine.LOAD, Engine.SAVE} else reset)
            for e, part in engine_components(self.arch, self.mac).items()
        }
        m.d.comb += [clear.eq(run.clear), flush.eq(run.flush)]
        self._control(m, registers, run, fetch, dispatch, interlock)
        self._buses(m, registers, run, fetch, parts)
        self._memories(m, parts)
        self._figures(m, registers, fetch, interlock)
        for e, part in parts.items():
            port = getattr(interlock, e.name.lower())
            m.d.comb += [
                *(part.control.start.eq(port.start), part.control.word.eq(port.word)),
                *(port.last.eq(part.control.last), port.done.eq(part.control.done)),
            ]
        m.d.comb += [self.trace_start.eq(interlock.started), self.trace_done.eq(interlock.finished)]
        return m

    def _control(
        self, m: Module, registers: Any, run: Any, fetch: Any, dispatch: Any, interlock: Any
    ) -> None:
        """Host to run control, and the way of an instruction from FETCH to its engine."""
        connect(m, flipped(self.registers), registers.bus)
        m.d.comb += [
            *(registers.id.eq(MAGIC), registers.version.eq(INTERFACE_VERSION)),
            Cat(registers.design_hash_lo, registers.design_hash_hi).eq(run.hash),
            *(run.start.eq(registers.control[0]), run.abort.eq(registers.control[1])),
            run.program_hash.eq(Cat(registers.program_hash_lo, registers.program_hash_hi)),
            run.watchdog.eq(registers.watchdog),
            registers.status.eq(Cat(run.busy, run.done, run.error)),
            registers.set_irq_status.eq(run.event),
            self.irq.eq((registers.irq_status & registers.irq_enable).any()),
            registers.error_cause.eq(Cat(run.cause, run.response)),
            registers.error_instruction.eq(run.instruction),
            Cat(registers.error_address_lo, registers.error_address_hi).eq(run.address),
            Cat(registers.cycles_lo, registers.cycles_hi).eq(run.cycles),
        ]
        m.d.comb += [
            *(fetch.begin.eq(run.begin), fetch.words.eq(registers.program_words)),
            fetch.stop.eq(run.halt),
            *(dispatch.words.eq(registers.program_words), dispatch.stop.eq(run.stop)),
            *(dispatch.word.eq(fetch.word), dispatch.valid.eq(fetch.valid), fetch.take.eq(dispatch.take)),
            *(interlock.word.eq(fetch.word), interlock.index.eq(dispatch.index)),
            *(interlock.push.eq(dispatch.push), dispatch.space.eq(interlock.space)),
            interlock.stop.eq(run.stop),
        ]
        m.d.comb += [
            run.first.eq(fetch.first),
            *(run.ended.eq(dispatch.ended), run.ends.eq(dispatch.ends)),
            *(run.fault.eq(dispatch.fault), run.fault_index.eq(dispatch.fault_index)),
            run.next_index.eq(dispatch.index),
            *(run.finished.eq(interlock.finished), run.unfinished.eq(interlock.unfinished)),
        ]
        for e in Engine:
            name = e.name.lower()
            m.d.comb += getattr(run, f"count_{name}").eq(getattr(dispatch, f"count_{name}"))
            m.d.comb += getattr(run, f"tokens_{name}").eq(getattr(interlock, f"tokens_{name}"))
            if e in engines(self.arch):
                m.d.comb += getattr(run, f"oldest_{name}").eq(getattr(interlock, f"oldest_{name}"))

    def _buses(self, m: Module, registers: Any, run: Any, fetch: Any, parts: dict[Engine, Any]) -> None:
        """DRAM: ports, base addresses, errors, draining; bytes by beats."""
        load, save = parts[Engine.LOAD], parts[Engine.SAVE]
        connect(m, flipped(self.fetch), fetch.bus)
        for p in range(self.arch.dma.ports):
            connect(m, flipped(getattr(self, f"read{p}")), getattr(load, f"axi{p}"))
            connect(m, flipped(getattr(self, f"write{p}")), getattr(save, f"axi{p}"))
        names = ("program", "weights", "maps")
        bases = [Cat(getattr(registers, f"{n}_base_lo"), getattr(registers, f"{n}_base_hi")) for n in names]
        m.d.comb += fetch.base.eq(bases[0])
        for unit in (load, save):
            m.d.comb += [getattr(unit, f"base{i}").eq(base) for i, base in enumerate(bases)]
            m.d.comb += unit.abort.eq(run.flush)
        m.d.comb += [
            *(run.fetch_failed.eq(fetch.failed), run.fetch_address.eq(fetch.failed_address)),
            *(run.fetch_response.eq(fetch.failed_response), run.fetch_idle.eq(fetch.idle)),
        ]
        for name, unit in (("load", load), ("save", save)):
            m.d.comb += [
                getattr(run, f"{name}_failed").eq(unit.error),
                getattr(run, f"{name}_address").eq(unit.error_address),
                getattr(run, f"{name}_response").eq(unit.error_response),
                getattr(run, f"{name}_idle").eq(unit.idle),
            ]

    def _memories(self, m: Module, parts: dict[Engine, Any]) -> None:
        """Map ports, and the memories that FILL writes."""
        arch, load = self.arch, parts[Engine.LOAD]
        conv, dwc, vec = parts[Engine.CONV], parts.get(Engine.DWC), parts[Engine.VEC]
        readers = {"conv": conv.source, "vec_a": vec.source_a, "vec_b": vec.source_b}
        writers = {"load": load.target, "conv": conv.target, "vec": vec.target}
        if dwc is not None:
            readers["dwc"], writers["dwc"] = dwc.source, dwc.target
        readers["save"] = parts[Engine.SAVE].source
        maps = place(m, "maps", MapMemory(arch, tuple(readers), tuple(writers)))
        for kind, ports in (("read", readers), ("write", writers)):
            for name, port in ports.items():
                connect(m, port, getattr(maps, f"{kind}_{name}"))
        weights = place(m, "weights", self._wide("weights"))
        connect(m, conv.weights, weights.read)
        connect(m, load.weights, weights.fill)
        for part in (conv, dwc, vec):
            if part is not None:
                for name in ("enable", "address", "data"):
                    m.d.comb += getattr(part.table_fill, name).eq(getattr(load.tables, name))
        connect(m, load.vector, vec.vector_fill)
        if dwc is not None:
            depthwise = place(m, "depthwise", self._wide("depthwise"))
            connect(m, dwc.weights, depthwise.read)
            connect(m, load.depthwise, depthwise.fill)

    def _wide(self, name: str) -> WideMemory:
        bits, words = wide_memories(self.arch)[name]
        return WideMemory(words, bits, "ultra" if name in self.in_uram else "block")

    def _figures(self, m: Module, registers: Any, fetch: Any, interlock: Any) -> None:
        """What the host may read of a run: busy cycles, instructions, bytes."""
        clear = Signal(name="clear_figures")
        m.d.comb += clear.eq(fetch.begin)
        ports, beat = self.arch.dma.ports, self.arch.beat_bytes

        def total(name: str, amount: Value, most: int, shift: int = 0) -> None:
            tally = place(m, f"{name}_tally", Tally(most), reset=clear)
            m.d.comb += tally.amount.eq(amount)
            low, high = getattr(registers, f"{name}_lo"), getattr(registers, f"{name}_hi")
            m.d.comb += Cat(low, high).eq(tally.total << shift)

        def beats(kind: str, channel: str) -> Value:
            handshakes = Signal(ports, name=f"{kind}_beats")
            for p in range(ports):
                bus = getattr(getattr(self, f"{kind}{p}"), channel)
                m.d.sync += handshakes[p].eq(bus.valid & bus.ready)
            count: Value = handshakes[0]
            for p in range(1, ports):
                count = count + handshakes[p]
            return count

        shift = (beat - 1).bit_length()
        total("fetch_bytes", fetch.beat, 1, shift)
        total("load_bytes", beats("read", "r"), ports, shift)
        total("save_bytes", beats("write", "w"), ports, shift)
        for e in engines(self.arch):
            name = e.name.lower()
            occupied = Signal(name=f"{name}_occupied")
            m.d.sync += occupied.eq(interlock.busy[e] | interlock.started[e])
            total(f"{name}_busy", occupied, 1)
            done = Signal(32, name=f"{name}_done")
            m.d.sync += done.eq(Mux(clear, 0, done + interlock.finished[e]))
            m.d.comb += getattr(registers, f"{name}_done").eq(done)


class DpuTop(Component):
    """All cores of a design, side by side, under the bus names that tools know.

    With one core: ``s_axi_*`` (AXI4-Lite), ``m_axi_fetch_*``, ``m_axi0_*`` ... (AXI4), ``irq``, ``trace_start``, ``trace_done``.
    With several, core c has the registers from address 4096 * c on, ``m_axi_fetch<c>_*``, the ports from
    ``m_axi<c * ports>_*`` on, bit c of ``irq``, and bits 5 * c ... of the traces.
    """

    def __init__(self, arch: Arch, mac: str = "plain", uram: int = 0) -> None:
        self.arch, self.mac, self.uram = arch, mac, uram
        self.select_bits = (arch.cores - 1).bit_length()
        bits, cores = arch.dma.bits, range(arch.cores)
        self.fetch_names = ["m_axi_fetch"] if arch.cores == 1 else [f"m_axi_fetch{c}" for c in cores]
        members = _flat_members("s_axi", lite(_LITE_BITS + self.select_bits), In)
        for name in self.fetch_names:
            members |= _flat_members(name, read_channels(bits), Out)
        for p in range(arch.cores * arch.dma.ports):
            members |= _flat_members(f"m_axi{p}", read_channels(bits), Out)
            members |= _flat_members(f"m_axi{p}", write_channels(bits), Out)
        members |= {"irq": Out(arch.cores)}
        members |= {n: Out(len(Engine) * arch.cores) for n in ("trace_start", "trace_done")}
        super().__init__(members)

    @property
    def module_name(self) -> str:
        return "dpu_top"

    def elaborate(self, platform: object) -> Module:
        m = Module()
        arch = self.arch
        cores = [place(m, f"core{c}", Core(arch, self.mac, self.uram)) for c in range(arch.cores)]
        for c, core in enumerate(cores):
            self._join(m, self.fetch_names[c], core.fetch)
            for p in range(arch.dma.ports):
                name = f"m_axi{c * arch.dma.ports + p}"
                self._join(m, name, getattr(core, f"read{p}"))
                self._join(m, name, getattr(core, f"write{p}"))
        m.d.comb += [
            self.irq.eq(Cat(core.irq for core in cores)),
            self.trace_start.eq(Cat(core.trace_start for core in cores)),
            self.trace_done.eq(Cat(core.trace_done for core in cores)),
        ]
        if arch.cores == 1:
            self._join(m, "s_axi", cores[0].registers)
        else:
            self._share(m, cores)
        return m

    def _join(self, m: Module, prefix: str, port: Any) -> None:
        """Wires between the flat members and a core's port."""
        for path, member, value in port.signature.flatten(port):
            flat = getattr(self, f"{prefix}_{''.join(map(str, path))}")
            m.d.comb += flat.eq(value) if member.flow == Out else value.eq(flat)

    def _share(self, m: Module, cores: list[Core]) -> None:
        """One AXI4-Lite port for all cores: the address above a block chooses; one transfer of a kind at a time."""
        select = slice(_LITE_BITS, _LITE_BITS + self.select_bits)
        for kinds, answer in ((("aw", "w"), "b"), (("ar",), "r")):
            lead = kinds[0]
            busy, chosen = (
                Signal(name=f"{lead}_busy"),
                Signal(self.select_bits, name=f"{lead}_chosen", reset_less=True),
            )
            address = getattr(self, f"s_axi_{lead}addr")
            # The choice is registered first; then the channels are joined to that core until it has answered.
            with m.If(~busy & getattr(self, f"s_axi_{lead}valid")):
                m.d.sync += [busy.eq(1), chosen.eq(address[select])]
            done = getattr(self, f"s_axi_{answer}valid") & getattr(self, f"s_axi_{answer}ready")
            with m.If(busy & done):
                m.d.sync += busy.eq(0)
            taken = Signal(len(kinds), name=f"{lead}_taken")
            for i, kind in enumerate(kinds):
                ready = getattr(self, f"s_axi_{kind}ready")
                with m.If(ready & getattr(self, f"s_axi_{kind}valid")):
                    m.d.sync += taken[i].eq(1)
            with m.If(busy & done):
                m.d.sync += taken.eq(0)
            missing: Value = Const(1, 1)
            for c, core in enumerate(cores):
                mine = busy & (chosen == c)
                missing = missing & ~(chosen == c)
                for i, kind in enumerate(kinds):
                    to = getattr(core.registers, kind)
                    for field in (f for f in to.signature.members if f not in {"valid", "ready"}):
                        m.d.comb += getattr(to, field).eq(getattr(self, f"s_axi_{kind}{field}"))
                    m.d.comb += to.valid.eq(mine & ~taken[i] & getattr(self, f"s_axi_{kind}valid"))
                    with m.If(mine & ~taken[i]):
                        m.d.comb += getattr(self, f"s_axi_{kind}ready").eq(to.ready)
                back = getattr(core.registers, answer)
                m.d.comb += back.ready.eq(mine & getattr(self, f"s_axi_{answer}ready"))
                with m.If(mine):
                    for field in (f for f in back.signature.members if f != "ready"):
                        m.d.comb += getattr(self, f"s_axi_{answer}{field}").eq(getattr(back, field))
            # A number without a core: taken, answered with zeros.
            with m.If(busy & missing):
                for i, kind in enumerate(kinds):
                    m.d.comb += getattr(self, f"s_axi_{kind}ready").eq(~taken[i])
                m.d.comb += getattr(self, f"s_axi_{answer}valid").eq(taken.all())


def _flat_members(prefix: str, signature: Any, direction: Any) -> dict[str, Any]:
    """Members of a bus, called ``<prefix>_<channel><signal>``."""
    found = {}
    for channel, bundle in signature.members.items():
        for name, member in bundle.signature.members.items():  # every channel is seen from the master's side
            found[f"{prefix}_{channel}{name}"] = (
                direction(member.shape) if member.flow == Out else direction(member.shape).flip()
            )
    return found
