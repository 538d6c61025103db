"""Vivado block design around the core, as Tcl: processor or JTAG, interconnect, clock, reset, interrupt, addresses.

Cells are called ``ps``, ``dpu``, ``reset``, ``control`` (registers), ``memory_<n>`` (DRAM), ``interrupts``; without a processor
``clocks``, ``mig`` and ``jtag`` stand in for ``ps``. Names of cells, pins and settings of AMD's blocks: PG082 (Zynq-7000 PS),
PG201 (Zynq UltraScale+ PS), PG247 (SmartConnect), PG099 (AXI INTC), PG164 (reset), PG065 (clocks), UG586 (MIG), PG174 (JTAG).
"""

from __future__ import annotations

from ..ir.arch import Arch
from ..ir.board import Board
from .wiring import Wiring

__all__ = ["IP_VLNV", "block_design"]

IP_VLNV = "tilewright:dpu:dpu_top:1.0"
"""Vendor, library, name and version of the core's IP; the PYNQ driver looks for it."""
_SLAVE_GP = {"HPC0_FPD": 0, "HPC1_FPD": 1, "HP0_FPD": 2, "HP1_FPD": 3, "HP2_FPD": 4, "HP3_FPD": 5, "LPD": 6}
"""Number of a slave port in the settings of the Zynq UltraScale+ PS (PG201)."""
_MASTER_GP = {"HPM0_FPD": 0, "HPM1_FPD": 1, "HPM0_LPD": 2}


def block_design(arch: Arch, board: Board, wiring: Wiring) -> str:
    """``design.tcl``: builds the block design ``dpu`` in the open project, whose board part may or may not be set.

    `has_board` is set by the caller: whether the board's presets are installed.
    """
    body = {"zynq7": _zynq7, "zynqmp": _zynqmp, "none": _fabric}[wiring.system.processor]
    return "\n".join([*body(arch, board, wiring), "", "validate_bd_design", "save_bd_design", ""])


# -- pieces ------------------------------------------------------------------------------------------------------------
def _cell(name: str, vlnv: str, **config: object) -> list[str]:
    lines = [f"create_bd_cell -type ip -vlnv {vlnv} {name}"]
    return lines + (_configure(name, config) if config else [])


def _configure(name: str, config: dict[str, object]) -> list[str]:
    settings = " ".join(f"CONFIG.{k} {{{v}}}" for k, v in config.items())
    return [f"set_property -dict [list {settings}] [get_bd_cells {name}]"]


def _bus(a: str, b: str) -> str:
    return f"connect_bd_intf_net [get_bd_intf_pins {a}] [get_bd_intf_pins {b}]"


def _net(source: str, *sinks: str) -> str:
    return f"connect_bd_net [get_bd_pins {source}] {' '.join(f'[get_bd_pins {s}]' for s in sinks)}"


def _address(offset: int, size: int, space: str, segment: str) -> str:
    return (
        f"assign_bd_address -offset 0x{offset:08X} -range 0x{size:08X} -target_address_space "
        f"[get_bd_addr_spaces {space}] [get_bd_addr_segs {segment}] -force"
    )


def _core(clock: str, reset_source: str) -> list[str]:
    """The core, and the reset of everything on its clock."""
    return [
        "",
        "# The core",
        *_cell("dpu", IP_VLNV),
        *_cell("reset", "xilinx.com:ip:proc_sys_reset"),
        _net(clock, "dpu/clk", "reset/slowest_sync_clk"),
        _net(reset_source, "reset/ext_reset_in"),
        _net("reset/peripheral_reset", "dpu/rst"),
    ]


def _interconnect(name: str, masters: list[str], slaves: list[str], clock: str, clocks: int = 1) -> list[str]:
    """A SmartConnect with its bus connections; it converts width and protocol where they differ."""
    return [
        *_cell(name, "xilinx.com:ip:smartconnect", NUM_SI=len(masters), NUM_MI=len(slaves), NUM_CLKS=clocks),
        *(_bus(m, f"{name}/S{i:02d}_AXI") for i, m in enumerate(masters)),
        *(_bus(f"{name}/M{i:02d}_AXI", s) for i, s in enumerate(slaves)),
        _net(clock, f"{name}/aclk"),
        _net("reset/peripheral_aresetn", f"{name}/aresetn"),
    ]


# -- Zynq: a processing system with hard memory ports ------------------------------------------------------------------
def _zynq7(arch: Arch, board: Board, wiring: Wiring) -> list[str]:
    ports = [s.removeprefix("S_AXI_") for s in wiring.memory]
    control = wiring.system.control.removeprefix("M_AXI_")
    config: dict[str, object] = {
        f"PCW_USE_M_AXI_{control}": 1,
        **{f"PCW_USE_S_AXI_{p}": 1 for p in ports},
        **{f"PCW_S_AXI_{p}_DATA_WIDTH": board.port_bits for p in ports if p.startswith("HP")},
        "PCW_EN_CLK0_PORT": 1,
        "PCW_FPGA0_PERIPHERAL_FREQMHZ": f"{arch.clock_mhz:g}",
        "PCW_EN_RST0_PORT": 1,
        "PCW_USE_FABRIC_INTERRUPT": 1,
        "PCW_IRQ_F2P_INTR": 1,
    }
    return [
        'create_bd_design "dpu"',
        "",
        "# Processing system: memory and pins from the board's preset, then the ports that the core needs",
        *_cell("ps", "xilinx.com:ip:processing_system7"),
        "apply_bd_automation -rule xilinx.com:bd_rule:processing_system7 -config [list make_external {FIXED_IO, DDR} "
        "apply_board_preset $has_board Master {Disable} Slave {Disable}] [get_bd_cells ps]",
        *_configure("ps", config),
        *_core("ps/FCLK_CLK0", "ps/FCLK_RESET0_N"),
        *_memory(wiring, "ps/FCLK_CLK0", {s: f"ps/{s}_ACLK" for s in wiring.memory}),
        *_control(wiring, "ps/FCLK_CLK0", f"ps/{wiring.system.control}_ACLK", "ps/IRQ_F2P"),
        *_addresses(wiring, {s: (f"ps/{s}", "*_DDR_*") for s in wiring.memory}),
    ]


def _zynqmp(arch: Arch, board: Board, wiring: Wiring) -> list[str]:
    ports = {s: s.removeprefix("S_AXI_") for s in wiring.memory}
    used = wiring.system.control.removeprefix("M_AXI_")
    config: dict[str, object] = {
        **{f"PSU__USE__M_AXI_GP{n}": int(name == used) for name, n in _MASTER_GP.items()},
        **{f"PSU__USE__S_AXI_GP{_SLAVE_GP[p]}": 1 for p in ports.values()},
        **{f"PSU__SAXIGP{_SLAVE_GP[p]}__DATA_WIDTH": board.port_bits for p in ports.values()},
        "PSU__FPGA_PL0_ENABLE": 1,
        "PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ": f"{arch.clock_mhz:g}",
        "PSU__USE__IRQ0": 1,
    }
    clock = "ps/pl_clk0"
    return [
        'create_bd_design "dpu"',
        "",
        "# Processing system: memory and pins from the board's preset, then the ports that the core needs",
        *_cell("ps", "xilinx.com:ip:zynq_ultra_ps_e"),
        "apply_bd_automation -rule xilinx.com:bd_rule:zynq_ultra_ps_e -config [list apply_board_preset $has_board] "
        "[get_bd_cells ps]",
        *_configure("ps", config),
        *_core(clock, "ps/pl_resetn0"),
        *_memory(wiring, clock, {s: f"ps/saxi{p.lower()}_aclk" for s, p in ports.items()}),
        *_control(wiring, clock, f"ps/maxi{used.lower()}_aclk", "ps/pl_ps_irq0"),
        *_addresses(wiring, {s: (f"ps/SAXIGP{_SLAVE_GP[p]}", "*_DDR_*") for s, p in ports.items()}),
    ]


def _memory(wiring: Wiring, clock: str, clock_pins: dict[str, str]) -> list[str]:
    lines = ["", "# Data and instructions to the DRAM"]
    for i, (slave, masters) in enumerate(wiring.memory.items()):
        lines += _interconnect(f"memory_{i}", [f"dpu/{m}" for m in masters], [f"ps/{slave}"], clock)
        lines.append(_net(clock, clock_pins[slave]))
    return lines


def _control(wiring: Wiring, clock: str, clock_pin: str, interrupt_pin: str) -> list[str]:
    """Registers and interrupt: PYNQ finds interrupts of the fabric behind an AXI interrupt controller."""
    return [
        "",
        "# Registers and interrupt",
        *_cell("interrupts", "xilinx.com:ip:axi_intc", C_IRQ_CONNECTION=1),
        *_interconnect("control", [f"ps/{wiring.system.control}"], ["dpu/s_axi", "interrupts/s_axi"], clock),
        _net(clock, clock_pin, "interrupts/s_axi_aclk"),
        _net("reset/peripheral_aresetn", "interrupts/s_axi_aresetn"),
        _net("dpu/irq", "interrupts/intr"),
        _net("interrupts/irq", interrupt_pin),
    ]


def _addresses(wiring: Wiring, segments: dict[str, tuple[str, str]]) -> list[str]:
    lines = [
        "",
        "# Addresses: registers for the processor; of what the memory ports reach, the DRAM alone",
        _address(*wiring.registers, "ps/Data", "dpu/s_axi/registers"),
        _address(*wiring.interrupts, "ps/Data", "interrupts/S_AXI/Reg"),
    ]
    for slave, masters in wiring.memory.items():
        owner, pattern = segments[slave]
        for m in masters:
            lines += [
                f"foreach segment [get_bd_addr_segs {owner}/*] {{",
                f"    if {{[string match {pattern} $segment]}} {{",
                f"        assign_bd_address -target_address_space [get_bd_addr_spaces dpu/{m}] $segment",
                "    } else {",
                f"        exclude_bd_addr_seg -target_address_space [get_bd_addr_spaces dpu/{m}] $segment",
                "    }",
                "}",
            ]
    return lines


def _any(cores: int) -> list[str]:
    """One interrupt of all cores."""
    if cores == 1:
        return []
    gate = _cell("any_irq", "xilinx.com:ip:util_reduced_logic", C_OPERATION="or", C_SIZE=cores)
    return [*gate, _net("dpu/irq", "any_irq/Op1")]


# -- no processor: DRAM controller in the fabric, host over JTAG -------------------------------------------------------
def _fabric(arch: Arch, board: Board, wiring: Wiring) -> list[str]:
    system = wiring.system
    masters = [f"dpu/{m}" for ms in wiring.memory.values() for m in ms]
    controller_mhz = {
        "sys": "166.667",
        "ref": "200.000",
    }  # UG586: input of the board's MIG preset, IDELAY reference
    lights = {
        "led_calibrated": "mig/init_calib_complete",
        "led_irq": "dpu/irq" if wiring.cores == 1 else "any_irq/Res",
    }
    return [
        "if {!$has_board} {",
        f'    error "the DRAM controller is set up from the board files of {system.board_part}: install them"',
        "}",
        'create_bd_design "dpu"',
        "",
        "# Clocks and DRAM controller; the controller's pins and timing come from the board files",
        f"create_bd_port -dir I -type clk -freq_hz {system.clock_mhz * 1e6:.0f} clock",
        "create_bd_port -dir I -type rst reset_n",
        "set_property CONFIG.POLARITY ACTIVE_LOW [get_bd_ports reset_n]",
        *_cell(
            "clocks",
            "xilinx.com:ip:clk_wiz",
            PRIM_IN_FREQ=f"{system.clock_mhz:g}",
            RESET_TYPE="ACTIVE_LOW",
            RESET_PORT="resetn",
            CLKOUT1_REQUESTED_OUT_FREQ=f"{arch.clock_mhz:g}",
            CLKOUT2_USED="true",
            CLKOUT2_REQUESTED_OUT_FREQ=controller_mhz["sys"],
            CLKOUT3_USED="true",
            CLKOUT3_REQUESTED_OUT_FREQ=controller_mhz["ref"],
        ),
        *_cell("mig", "xilinx.com:ip:mig_7series"),
        "apply_board_connection -board_interface ddr3_sdram -ip_intf mig/mig_ddr_interface -diagram dpu",
        # Board files may bring ports for the controller's clocks; here they come from `clocks`.
        "foreach pin {sys_clk_i clk_ref_i} {",
        "    set nets [get_bd_nets -quiet -of_objects [get_bd_pins mig/$pin]]",
        "    if {[llength $nets] > 0} {",
        "        delete_bd_objs $nets [get_bd_ports -quiet $pin]",
        "    }",
        "}",
        "connect_bd_net [get_bd_ports clock] [get_bd_pins clocks/clk_in1]",
        "connect_bd_net [get_bd_ports reset_n] [get_bd_pins clocks/resetn] [get_bd_pins mig/sys_rst]",
        _net("clocks/clk_out2", "mig/sys_clk_i"),
        _net("clocks/clk_out3", "mig/clk_ref_i"),
        *_core("clocks/clk_out1", "mig/ui_clk_sync_rst"),
        _net("clocks/locked", "reset/dcm_locked"),
        *_cell("reset_mig", "xilinx.com:ip:proc_sys_reset"),
        _net("mig/ui_clk", "reset_mig/slowest_sync_clk"),
        _net("mig/ui_clk_sync_rst", "reset_mig/ext_reset_in"),
        _net("reset_mig/peripheral_aresetn", "mig/aresetn"),
        "",
        "# The host: JTAG to registers and DRAM",
        *_cell("jtag", "xilinx.com:ip:jtag_axi"),
        _net("clocks/clk_out1", "jtag/aclk"),
        _net("reset/peripheral_aresetn", "jtag/aresetn"),
        *_interconnect(
            "memory_0", [*masters, "jtag/M_AXI"], ["mig/S_AXI", "dpu/s_axi"], "clocks/clk_out1", 2
        ),
        _net("mig/ui_clk", "memory_0/aclk1"),
        *_any(wiring.cores),
        *(
            line
            for port, pin in lights.items()
            if port in system.pins
            for line in (
                f"create_bd_port -dir O {port}",
                f"connect_bd_net [get_bd_pins {pin}] [get_bd_ports {port}]",
            )
        ),
        "",
        "# Addresses",
        _address(*wiring.registers, "jtag/Data", "dpu/s_axi/registers"),
        *(
            _address(system.dram, system.dram_mb << 20, s, "mig/memmap/memaddr")
            for s in [*masters, "jtag/Data"]
        ),
        *(
            f"exclude_bd_addr_seg -target_address_space [get_bd_addr_spaces {m}] [get_bd_addr_segs dpu/s_axi/registers]"
            for m in masters
        ),
    ]
