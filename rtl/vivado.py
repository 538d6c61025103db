"""The Vivado run as Tcl: project, block design, synthesis, implementation, reports, bitstream and hand-off files."""

from __future__ import annotations

from ..ir.arch import Arch
from ..ir.board import Board

__all__ = ["build_script", "jtag_script"]


def build_script(arch: Arch, board: Board) -> str:
    """``build.tcl``: ``vivado -mode batch -source build.tcl [-tclargs JOBS]``; results go to ``out/`` beside the package's files."""
    system = board.system
    assert system is not None, "wire() refused the board before"
    carried = "dpu.hwh" if system.processor != "none" else ""
    return f"""\
# Tilewright: {arch.name} ({arch.design_hash}) on {board.title or board.name}, {arch.clock_mhz:g} MHz.
# vivado -mode batch -source build.tcl [-tclargs JOBS]
set here [file dirname [file normalize [info script]]]
set package [file dirname $here]
set out [file join $package out]
set jobs [expr {{[llength $argv] > 0 ? [lindex $argv 0] : 4}}]
file mkdir $out

# Project; the board's presets where they are installed
create_project dpu [file join $out project] -part {board.part} -force
set boards [lsort -dictionary [get_board_parts -quiet {{{system.board_part}:*}}]]
set has_board [expr {{[llength $boards] > 0}}]
if {{$has_board}} {{
    set_property board_part [lindex $boards end] [current_project]
}} else {{
    puts "WARNING: no board files of {system.board_part}: the processor's memory and pins are not set up. The bitstream works\\
 on a system that booted already (PYNQ); dpu.xsa does not describe this board."
}}
set_property ip_repo_paths [list [file join $package ip]] [current_project]
update_ip_catalog -rebuild
if {{[llength [get_ipdefs -all tilewright:dpu:dpu_top:1.0]] == 0}} {{
    error "Vivado did not take the core from [file join $package ip]"
}}

# Design
source [file join $here design.tcl]
set design [get_files dpu.bd]
generate_target all $design
add_files -norecurse [make_wrapper -files $design -top]
set_property top dpu_wrapper [current_fileset]
add_files -fileset constrs_1 -norecurse [file join $package constraints board.xdc]
update_compile_order -fileset sources_1

# Synthesis and implementation
foreach {{run steps}} {{synth_1 {{}} impl_1 {{-to_step write_bitstream}}}} {{
    launch_runs $run {{*}}$steps -jobs $jobs
    wait_on_run $run
    if {{[get_property PROGRESS [get_runs $run]] ne "100%"}} {{
        error "$run ended with: [get_property STATUS [get_runs $run]]"
    }}
}}

# Reports
open_run impl_1
report_timing_summary -file [file join $out timing.rpt]
report_utilization -hierarchical -file [file join $out utilization.rpt]
report_power -file [file join $out power.rpt]
report_clock_interaction -file [file join $out clocks.rpt]
report_methodology -file [file join $out methodology.rpt]
set slack [get_property SLACK [get_timing_paths -delay_type max -max_paths 1]]
set hold [get_property SLACK [get_timing_paths -delay_type min -max_paths 1]]
puts "worst setup slack $slack ns, worst hold slack $hold ns at {arch.clock_mhz:g} MHz"

# Results: bitstream, hand-off for PYNQ, hand-off for software
set runs [file join $out project dpu.runs impl_1]
file copy -force [file join $runs dpu_wrapper.bit] [file join $out dpu.bit]
{_handoff() if carried else "# (no processor: no hand-off file)"}
if {{$slack < 0 || $hold < 0}} {{
    error "the design does not close at {arch.clock_mhz:g} MHz: setup slack $slack ns, hold slack $hold ns; take a lower clock_mhz"
}}
"""


def _handoff() -> str:
    return """\
write_hw_platform -fixed -include_bit -force -file [file join $out dpu.xsa]
set found {}
foreach sources {dpu.gen dpu.srcs} {
    lappend found {*}[glob -nocomplain [file join $out project $sources sources_1 bd dpu hw_handoff dpu.hwh]]
}
if {[llength $found] == 0} {
    error "Vivado wrote no hardware hand-off file (dpu.hwh)"
}
file copy -force [lindex $found 0] [file join $out dpu.hwh]"""


def jtag_script(board: Board) -> str:
    """``jtag.tcl`` for boards without a processor: registers and DRAM from Vivado's hardware manager."""
    system = board.system
    assert system is not None, "wire() refused the board before"
    return f"""\
# Registers and DRAM of the design over JTAG, in Vivado's hardware manager with the bitstream loaded:
#     source jtag.tcl
#     dpu_read 0          ;# 54494c45
#     dpu_put 0 words.txt ;# a file of 32-bit hexadecimal words, to that offset of the DRAM
set dpu_axi [lindex [get_hw_axis] 0]
set dpu_registers 0x{system.registers:08X}
set dpu_dram 0x{system.dram:08X}

proc dpu_transfer {{kind address args}} {{
    set name [create_hw_axi_txn -force transfer $::dpu_axi -type $kind -address [format %08x $address] {{*}}$args]
    run_hw_axi -quiet $name
    return [get_property DATA $name]
}}
proc dpu_read {{offset}} {{ dpu_transfer read [expr {{$::dpu_registers + $offset}}] -len 1 }}
proc dpu_write {{offset value}} {{
    dpu_transfer write [expr {{$::dpu_registers + $offset}}] -len 1 -data [format %08x $value]
}}
proc dpu_put {{offset file}} {{
    set channel [open $file]
    set words [split [string trim [read $channel]]]
    close $channel
    set at [expr {{$::dpu_dram + $offset}}]
    # At most 256 words a transfer (PG174), the last word first in the text.
    for {{set i 0}} {{$i < [llength $words]}} {{incr i 256}} {{
        set some [lrange $words $i [expr {{$i + 255}}]]
        dpu_transfer write [expr {{$at + 4 * $i}}] -len [llength $some] -data [join [lreverse $some] ""]
    }}
}}
proc dpu_get {{offset count}} {{
    set words {{}}
    for {{set i 0}} {{$i < $count}} {{incr i}} {{
        lappend words [dpu_transfer read [expr {{$::dpu_dram + $offset + 4 * $i}}] -len 1]
    }}
    return $words
}}
"""
