"""Board packages: their Tcl runs in tclsh against a Vivado that only writes down what it is told, and what it is told is checked."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
from tilewright.ir.arch import Arch
from tilewright.ir.board import Board, board_names
from tilewright.ir.errors import RtlError
from tilewright.rtl.board_package import MANIFEST, board_package, mac_style
from tilewright.rtl.top_ports import TopPorts, top_ports
from tilewright.rtl.wiring import register_bytes, wire
from top_text import top_text

CASES = {name: (name, Board.named(name).default_arch) for name in board_names()}
CASES["zcu102, two cores"] = ("zcu102", Arch.preset("b512").override({"cores": 2, "dma.ports": 3}))
CASES["arty, two cores"] = (
    "arty-a7-100",
    Arch.preset("b512").override({"cores": 2, "dma.ports": 1, "clock_mhz": 100}),
)

STUB = r"""
proc tell {args} { puts [list TOLD {*}$args] }
foreach name {create_project set_property update_ip_catalog create_bd_design create_bd_cell apply_bd_automation
    connect_bd_intf_net connect_bd_net assign_bd_address exclude_bd_addr_seg create_bd_port apply_board_connection
    validate_bd_design save_bd_design generate_target add_files update_compile_order launch_runs wait_on_run open_run
    report_timing_summary report_utilization report_power report_clock_interaction report_methodology
    delete_bd_objs} {
    proc $name {args} "tell $name {*}\$args"
}
proc write_hw_platform {args} {
    tell write_hw_platform {*}$args
    set at [file dirname [lindex $args end]]
    foreach name {project/dpu.gen/sources_1/bd/dpu/hw_handoff/dpu.hwh} {
        file mkdir [file dirname [file join $at $name]]
        close [open [file join $at $name] w]
    }
}
foreach name {cells pins intf_pins ports addr_spaces} { proc get_bd_$name {args} { return [lindex $args end] } }
proc get_bd_nets {args} { if {$::clocks_come} { return net_of_[lindex $args end] } }
proc get_bd_addr_segs {what} {
    if {![string match {*/\*} $what]} { return $what }
    set at [string range $what 0 end-1]
    if {[string match */SAXIGP* $at]} {
        set port [dict get {0 HPC0 1 HPC1 2 HP0 3 HP1 4 HP2 5 HP3} [string index $at end-1]]
        return [list ${at}${port}_DDR_LOW ${at}${port}_DDR_HIGH ${at}${port}_LPS_OCM ${at}${port}_QSPI]
    }
    set port [string range [file tail [string trimright $at /]] 6 end]
    return [list ${at}${port}_DDR_LOWOCM ${at}${port}_QSPI_LINEAR]
}
proc current_project {} { return project }
proc current_fileset {} { return sources_1 }
proc get_files {what} { return $what }
proc get_runs {what} { return $what }
proc get_ipdefs {args} { if {$::core_known} { return [lindex $args end] } }
proc get_board_parts {args} {
    if {!$::boards_known} { return {} }
    set name [string range [lindex $args end] 0 end-2]
    return [list $name:1.10 $name:1.2]
}
proc make_wrapper {args} { tell make_wrapper {*}$args; return dpu_wrapper.v }
proc get_timing_paths {args} { return $args }
proc get_property {name what} {
    switch $name { PROGRESS { return $::progress } STATUS { return "it went wrong" } SLACK { return $::slack } }
    error "no property $name"
}
set argv {}
"""
"""Vivado's commands. What they are given is printed; what they answer is set by the test."""

_AXI_STREAMS = {"aclk", "aresetn"}
PINS = {
    "xilinx.com:ip:proc_sys_reset": (
        {
            "slowest_sync_clk",
            "ext_reset_in",
            "dcm_locked",
            "peripheral_reset",
            "peripheral_aresetn",
            "mb_debug_sys_rst",
        },
        set(),
    ),
    "xilinx.com:ip:axi_intc": ({"s_axi_aclk", "s_axi_aresetn", "intr", "irq"}, {"s_axi"}),
    "xilinx.com:ip:jtag_axi": (_AXI_STREAMS, {"M_AXI"}),
    "xilinx.com:ip:clk_wiz": ({"clk_in1", "resetn", "locked", "clk_out1", "clk_out2", "clk_out3"}, set()),
    "xilinx.com:ip:mig_7series": (
        {
            "sys_clk_i",
            "clk_ref_i",
            "sys_rst",
            "aresetn",
            "ui_clk",
            "ui_clk_sync_rst",
            "mmcm_locked",
            "init_calib_complete",
        },
        {"S_AXI", "DDR3"},
    ),
    "xilinx.com:ip:util_reduced_logic": ({"Op1", "Res"}, set()),
}
"""Pins and bus pins of AMD's blocks, from their product guides (block_design.py names them)."""


@dataclass
class Design:
    """What the block design is, from the commands that built it; a name that does not exist fails at once."""

    ports: TopPorts
    cells: dict[str, str] = field(default_factory=dict)
    config: dict[str, dict[str, str]] = field(default_factory=dict)
    outside: set[str] = field(default_factory=set)
    buses: list[tuple[str, str]] = field(default_factory=list)
    nets: dict[str, str] = field(default_factory=dict)
    """Sink to source."""
    addresses: dict[tuple[str, str], tuple[str, str]] = field(default_factory=dict)
    excluded: set[tuple[str, str]] = field(default_factory=set)
    told: list[list[str]] = field(default_factory=list)

    def take(self, words: list[str]) -> None:
        self.told.append(words)
        name, *args = words
        if name == "create_bd_cell":
            self.cells[args[4]] = args[3]
        elif name == "set_property" and args[0] == "-dict":
            assert args[2] in self.cells
            pairs = _split(args[1])
            self.config.setdefault(args[2], {}).update(zip(pairs[::2], pairs[1::2], strict=True))
        elif name == "create_bd_port":
            self.outside.add(args[-1])
        elif name == "connect_bd_intf_net":
            assert all(self.has_bus(a) for a in args), args
            assert not set(args) & {x for pair in self.buses for x in pair}, f"{args}: connected before"
            self.buses.append((args[0], args[1]))
        elif name == "connect_bd_net":
            assert all(self.has_pin(a) for a in args), args
            for sink in args[1:]:
                assert sink not in self.nets, f"{sink} has two sources"
                self.nets[sink] = args[0]
        elif name in {"assign_bd_address", "exclude_bd_addr_seg"}:
            options = dict(zip(args[0::2], args[1::2], strict=False)) if "-offset" in args else {}
            space = args[args.index("-target_address_space") + 1]
            segment = args[args.index("-target_address_space") + 2]
            if name == "exclude_bd_addr_seg":
                self.excluded.add((space, segment))
            else:
                self.addresses[space, segment] = (options.get("-offset", ""), options.get("-range", ""))

    def _kind(self, path: str) -> tuple[str, str]:
        cell, _, pin = path.partition("/")
        assert cell in self.cells, f"{path}: there is no cell {cell}"
        return self.cells[cell], pin

    def has_bus(self, path: str) -> bool:
        kind, pin = self._kind(path)
        cell = path.split("/", maxsplit=1)[0]
        if kind.startswith("tilewright:"):
            return pin in {self.ports.control, *self.ports.memory, *self.ports.fetch}
        if kind == "xilinx.com:ip:smartconnect":
            found = re.fullmatch(r"([SM])(\d\d)_AXI", pin)
            return bool(found) and int(found[2]) < int(self.config[cell][f"CONFIG.NUM_{found[1]}I"])  # type: ignore[index]
        if kind in PINS:
            return pin in PINS[kind][1]
        return pin in self._processor(kind, cell)[1]

    def has_pin(self, path: str) -> bool:
        if "/" not in path:
            return path in self.outside
        kind, pin = self._kind(path)
        cell = path.split("/", maxsplit=1)[0]
        if kind.startswith("tilewright:"):
            return pin in {"clk", "rst", "irq"}
        if kind == "xilinx.com:ip:smartconnect":
            return pin in {
                "aclk",
                "aresetn",
                *(f"aclk{i}" for i in range(1, int(self.config[cell]["CONFIG.NUM_CLKS"]))),
            }
        if kind in PINS:
            return pin in PINS[kind][0]
        return pin in self._processor(kind, cell)[0]

    def _processor(self, kind: str, cell: str) -> tuple[set[str], set[str]]:
        """Pins of a processing system: those that its settings switch on."""
        on = {k.removeprefix("CONFIG.") for k, v in self.config.get(cell, {}).items() if v == "1"}
        pins, buses = set(), set()
        if kind == "xilinx.com:ip:processing_system7":
            for used in on:
                if found := re.fullmatch(r"PCW_USE_([MS]_AXI_(?:HP|GP)\d)", used):
                    buses.add(found[1])
                    pins.add(f"{found[1]}_ACLK")
            pins |= {"FCLK_CLK0"} if "PCW_EN_CLK0_PORT" in on else set()
            pins |= {"FCLK_RESET0_N"} if "PCW_EN_RST0_PORT" in on else set()
            pins |= {"IRQ_F2P"} if {"PCW_USE_FABRIC_INTERRUPT", "PCW_IRQ_F2P_INTR"} <= on else set()
        else:
            assert kind == "xilinx.com:ip:zynq_ultra_ps_e"
            slaves = ("HPC0_FPD", "HPC1_FPD", "HP0_FPD", "HP1_FPD", "HP2_FPD", "HP3_FPD", "LPD")
            masters = ("HPM0_FPD", "HPM1_FPD", "HPM0_LPD")
            for side, names in (("S", slaves), ("M", masters)):
                for i, port in enumerate(names):
                    if f"PSU__USE__{side}_AXI_GP{i}" in on:
                        buses.add(f"{side}_AXI_{port}")
                        pins.add(f"{side.lower()}axi{port.lower()}_aclk")
            pins |= {"pl_resetn0"} | ({"pl_clk0"} if "PSU__FPGA_PL0_ENABLE" in on else set())
            pins |= {"pl_ps_irq0"} if "PSU__USE__IRQ0" in on else set()
        return pins, buses


def _split(text: str) -> list[str]:
    """The words of a flat Tcl list."""
    return [a or b for a, b in re.findall(r"\{([^{}]*)\}|(\S+)", text)]


def _words(line: str) -> list[str]:
    """The words of a Tcl list whose words may be lists."""
    out, depth, word, braced = [], 0, "", False
    for c in line + " ":
        if c == "{":
            depth += 1
            braced = True
            if depth == 1:
                continue
        elif c == "}":
            depth -= 1
            if depth == 0:
                continue
        elif c == " " and depth == 0:
            if word or braced:
                out.append(word)
            word, braced = "", False
            continue
        word += c
    return out


def _package(case: str, tmp_path: Path) -> tuple[Arch, Board, TopPorts, Path]:
    name, arch = CASES[case]
    board, text = Board.named(name), top_text(arch)
    for path, data in board_package(arch, board, text=text).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(data)
    return arch, board, top_ports(text), tmp_path


def _run(
    folder: Path, script: str = "vivado/build.tcl", **answers: object
) -> subprocess.CompletedProcess[str]:
    """The build script in tclsh; a bitstream lies where the run would have put it."""
    if shutil.which("tclsh") is None:
        pytest.skip("tclsh")
    (folder / "out" / "project" / "dpu.runs" / "impl_1").mkdir(parents=True, exist_ok=True)
    (folder / "out" / "project" / "dpu.runs" / "impl_1" / "dpu_wrapper.bit").write_bytes(b"bits")
    settings = {
        "core_known": 1,
        "boards_known": 1,
        "progress": "100%",
        "slack": "0.120",
        "clocks_come": 0,
        **answers,
    }
    lines = [STUB, *(f"set {k} {{{v}}}" for k, v in settings.items()), f"source {{{folder / script}}}"]
    return subprocess.run(
        ["tclsh"], input="\n".join(lines), capture_output=True, text=True, check=False, timeout=60
    )


def _told(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    return [
        _words(line.removeprefix("TOLD ")) for line in done.stdout.splitlines() if line.startswith("TOLD ")
    ]


@pytest.mark.parametrize("case", CASES)
def test_the_design_is_whole(case: str, tmp_path: Path) -> None:
    """Every pin that is connected exists, every pin that must be driven is; each bus of the core reaches its slave."""
    arch, board, ports, folder = _package(case, tmp_path)
    system = board.system
    assert system is not None
    done = _run(folder)
    assert done.stderr == ""
    design = Design(ports)
    for words in _told(done):
        design.take(words)
    joined = {x for pair in design.buses for x in pair}
    for bus in (ports.control, *ports.memory, *ports.fetch):
        assert f"dpu/{bus}" in joined
    for cell, kind in design.cells.items():
        if kind == "xilinx.com:ip:smartconnect":
            for side in "SM":
                for i in range(int(design.config[cell][f"CONFIG.NUM_{side}I"])):
                    assert f"{cell}/{side}{i:02d}_AXI" in joined
            assert {f"{cell}/aclk", f"{cell}/aresetn"} <= set(design.nets)
    clock = design.nets["dpu/clk"]
    assert design.nets["dpu/rst"] == "reset/peripheral_reset"
    assert design.nets["reset/slowest_sync_clk"] == clock
    # The clock that was asked for is the machine's.
    asked = {
        "zynq7": ("ps", "PCW_FPGA0_PERIPHERAL_FREQMHZ"),
        "zynqmp": ("ps", "PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ"),
        "none": ("clocks", "CLKOUT1_REQUESTED_OUT_FREQ"),
    }[system.processor]
    assert float(design.config[asked[0]][f"CONFIG.{asked[1]}"]) == arch.clock_mhz
    # Every master of the core sees the DRAM and nothing else; the host sees the registers.
    host = "jtag/Data" if system.processor == "none" else "ps/Data"
    assert design.addresses[host, "dpu/s_axi/registers"] == (
        f"0x{system.registers:08X}",
        f"0x{register_bytes(arch.cores):08X}",
    )
    for master in (*ports.memory, *ports.fetch):
        seen = {segment for space, segment in design.addresses if space == f"dpu/{master}"}
        assert seen
        assert all("_DDR_" in s or s == "mig/memmap/memaddr" for s in seen)
        assert {segment for space, segment in design.excluded if space == f"dpu/{master}"}
    if system.processor == "none":
        assert design.nets["led_calibrated"] == "mig/init_calib_complete"
        assert set(system.pins) == design.outside
    else:
        source = design.nets["ps/IRQ_F2P" if system.processor == "zynq7" else "ps/pl_ps_irq0"]
        assert (source, design.nets["interrupts/intr"]) == ("interrupts/irq", "dpu/irq")
        for slave, masters in wire(board, ports).memory.items():
            assert f"ps/{slave}" in joined
            assert masters
        assert {f"ps/{s}" for s in wire(board, ports).memory} == {b for b in joined if "/S_AXI_" in b}


@pytest.mark.parametrize("case", ["pynq-z2", "kv260", "arty-a7-100"])
def test_the_run_goes_from_project_to_bitstream(case: str, tmp_path: Path) -> None:
    """Commands in an order that Vivado takes, and the files that the drivers load."""
    _, board, _, folder = _package(case, tmp_path)
    done = _run(folder)
    assert done.stderr == ""
    names = [words[0] for words in _told(done)]
    milestones = [
        "create_project", "update_ip_catalog", "create_bd_design", "validate_bd_design", "save_bd_design", "generate_target",
        "make_wrapper", "add_files", "update_compile_order", "launch_runs", "wait_on_run", "open_run", "report_timing_summary",
    ]  # fmt: skip
    assert [names.index(m) for m in milestones] == sorted(names.index(m) for m in milestones)
    project = next(words for words in _told(done) if words[0] == "create_project")
    assert project[project.index("-part") + 1] == board.part
    part = next(words for words in _told(done) if words[:2] == ["set_property", "board_part"])
    assert part[2].endswith(":1.10")  # the newest, by numbers
    assert (folder / "out" / "dpu.bit").read_bytes() == b"bits"
    assert (folder / "out" / "dpu.hwh").exists() == (case != "arty-a7-100")
    xdc = (folder / "constraints" / "board.xdc").read_text()
    assert board.system is not None
    assert set(re.findall(r"PACKAGE_PIN (\S+)", xdc)) == {pin for pin, _ in board.system.pins.values()}


@pytest.mark.parametrize(
    ("answers", "match"),
    [
        ({"core_known": 0}, "Vivado did not take the core"),
        ({"progress": "37%"}, "synth_1 ended with: it went wrong"),
        ({"slack": "-0.2"}, "does not close at 300 MHz: setup slack -0.2 ns"),
    ],
    ids=["core", "run", "timing"],
)
def test_a_run_that_fails_says_why(answers: dict[str, object], match: str, tmp_path: Path) -> None:
    *_, folder = _package("kv260", tmp_path)
    assert match in _run(folder, **answers).stderr


def test_without_board_files_a_processor_works_on_and_a_bare_fpga_does_not(tmp_path: Path) -> None:
    *_, zynq = _package("pynq-z2", tmp_path / "z")
    done = _run(zynq, boards_known=0)
    assert "WARNING: no board files of tul.com.tw:pynq-z2:part0" in done.stdout
    assert ["set_property", "board_part"] not in [w[:2] for w in _told(done)]
    assert done.stderr == ""
    *_, arty = _package("arty-a7-100", tmp_path / "a")
    assert (
        "board files of digilentinc.com:arty-a7-100:part0: install them" in _run(arty, boards_known=0).stderr
    )


def test_clocks_that_board_files_bring_are_taken_away(tmp_path: Path) -> None:
    *_, folder = _package("arty-a7-100", tmp_path)
    done = _run(folder, clocks_come=1)
    assert done.stderr == ""
    told = _told(done)
    for pin in ("sys_clk_i", "clk_ref_i"):
        gone = told.index(["delete_bd_objs", f"net_of_mig/{pin}", pin])
        assert gone < next(
            i for i, words in enumerate(told) if words[0] == "connect_bd_net" and f"mig/{pin}" in words
        )


def test_ports_are_dealt_in_turn() -> None:
    """More ports of the core than of the board share; instructions have their own where there is one."""
    arch = Arch.preset("b512").override({"cores": 3, "dma.ports": 2})
    ports = top_ports(top_text(arch))
    memory = wire(Board.named("kv260"), ports).memory
    assert memory["S_AXI_HP0_FPD"] == ("m_axi0", "m_axi4")
    assert memory["S_AXI_HP3_FPD"] == ("m_axi3",)
    assert memory["S_AXI_HPC0_FPD"] == ("m_axi_fetch0", "m_axi_fetch1", "m_axi_fetch2")
    one = wire(Board.named("arty-a7-100"), ports).memory
    assert one == {"S_AXI": (*(f"m_axi{i}" for i in range(6)), *(f"m_axi_fetch{i}" for i in range(3)))}


@pytest.mark.parametrize("case", ["kv260", "arty-a7-100"])
def test_a_package_is_the_same_every_time_and_names_no_place(case: str, tmp_path: Path) -> None:
    name, arch = CASES[case]
    board, text = Board.named(name), top_text(arch)
    one = board_package(arch, board, text=text)
    assert one == board_package(arch, board, text=text)
    manifest = json.loads(one[MANIFEST])
    assert manifest["sha256"] == {n: sha256(d).hexdigest() for n, d in one.items() if n != MANIFEST}
    assert (manifest["design"], manifest["part"], manifest["mac"]) == (
        arch.design_hash,
        board.part,
        mac_style(board),
    )
    for n, data in one.items():
        content = data.decode()
        assert not re.search(r"(?<![\w.$}])/(?:home|root|work|tmp|usr)/", content), n
        assert not re.search(r"\b20\d\d-\d\d-\d\d\b", content), n
    assert Arch.parse(one["arch.toml"].decode()) == arch
    assert ("pynq/tilewright_dpu.py" in one) == (case == "kv260")


def test_the_core_file_is_yaml_that_names_files_of_the_package() -> None:
    yaml = pytest.importorskip("yaml", reason="pyyaml")
    name, arch = CASES["kv260"]
    package = board_package(arch, Board.named(name), text=top_text(arch))
    head, _, body = package["tilewright_dpu.core"].decode().partition("\n")
    assert head == "CAPI=2:"
    core = yaml.safe_load(body)
    assert {f for s in core["filesets"].values() for f in s["files"]} <= set(package)
    for target in core["targets"].values():
        assert set(target["filesets"]) <= set(core["filesets"])
        assert target["toplevel"] == "dpu_top"
    assert core["targets"]["synth"]["tools"]["vivado"]["part"] == Board.named(name).part


def test_a_board_without_a_system_is_refused_before_the_verilog_is_written() -> None:
    bare = Board.named("kv260").model_copy(update={"system": None, "name": "mine"})
    with pytest.raises(RtlError, match=r"board mine: its table has no \[mine.system\]"):
        board_package(Arch.preset("b512"), bare)
