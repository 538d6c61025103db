"""Texts of the three representations: graph, tiling, instructions; printing and parsing are inverse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
from graphs import GraphBuilder, archs, graphs
from hypothesis import given, settings
from tilewright.ir.arch import Arch
from tilewright.ir.assembly import assemble, disassemble
from tilewright.ir.errors import ModelError, ProgramError, ScheduleError
from tilewright.ir.graph import Graph, Window
from tilewright.ir.graph_text import parse_graph, print_graph
from tilewright.ir.tile import TileProgram
from tilewright.ir.tile_notes import annotated
from tilewright.scheduler import schedule


def _block() -> Graph:
    """A strided stem and one inverted residual, as MobileNetV2 begins."""
    g = GraphBuilder(11, "f32")
    x = g.conv(g.input((64, 64, 3)), 16, (3, 3), (2, 2), (0, 0, 1, 1))
    wide = g.conv(x, 96, (1, 1), (1, 1), (0, 0, 0, 0))
    deep = g.conv(wide, 96, (3, 3), (1, 1), (1, 1, 1, 1), groups=96)
    g.add(x, g.conv(deep, 16, (1, 1), (1, 1), (0, 0, 0, 0)))
    return g.graph()


def test_the_tiling_of_an_inverted_residual_reads_like_a_poster(golden: Callable[[str, str], None]) -> None:
    """Golden text: one group, depth first, the expanded map in a ring of a few rows."""
    plan = schedule(_block(), Arch.preset("b1024").override({"maps.kib": 64, "name": "small"}))
    text = annotated(plan.tiling, plan.graph, plan.arch.lanes)
    golden("tiling.txt", text)
    assert TileProgram.parse(text) == plan.tiling


def test_the_graph_text_is_pinned(golden: Callable[[str, str], None]) -> None:
    text, arrays = print_graph(_block())
    golden("graph.txt", text)
    assert arrays["0"].shape == (16, 3, 3, 3)


@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(graphs())
def test_graph_text_and_arrays_are_the_graph(graph: Graph) -> None:
    """Every operator, attribute, shape and scale comes back."""
    text, arrays = print_graph(graph)
    again = parse_graph(text, arrays)
    assert print_graph(again)[0] == text
    assert (again.name, again.inputs, again.outputs) == (graph.name, graph.inputs, graph.outputs)
    assert again.tensors == {name: graph.tensors[name] for name in again.tensors}
    for a, b in zip(again.ops, graph.ops, strict=True):
        assert type(a) is type(b)
        for f in fields(a):
            one, other = getattr(a, f.name), getattr(b, f.name)
            assert np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other


@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(graphs(most=3), archs())
def test_instruction_text_is_the_program(graph: Graph, arch: Arch) -> None:
    try:
        program = schedule(graph, arch).program
    except ScheduleError:
        return
    assert np.array_equal(assemble(disassemble(program.fields)), program.fields)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("conv 3", r"line 1: want  mnemonic \[waits\]"),
        ("\nfly []", "line 2: no instruction is called 'fly'"),
        ("vec []", "vec is no function; want vec.add"),
        ("vec.fly []", "vec.fly is no function"),
        ("conv [gpu>=1]", "wait 'gpu>=1' is not engine>=tokens"),
        ("conv [] colour=1", "CONV has no field 'colour'"),
        ("conv [] kh=5000", r"CONV.kh = 5000 does not fit 10 bits"),
    ],
)
def test_broken_instruction_text_names_the_line(text: str, message: str) -> None:
    with pytest.raises(ProgramError, match=message):
        assemble(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("graph", "grph"), "line 1: want graph"),
        (("Conv", "Fly"), "Fly is no operator"),
        (("weight=@0", "weight=@99"), "array @99 of weight is not given"),
        (("mode=", "moody="), "has no attribute moody"),
        (("low=", "low=x"), "is no value"),
        ((": int8", " int8"), "want %tensor: int8"),
    ],
)
def test_broken_graph_text_names_the_line(change: tuple[str, str], message: str) -> None:
    g = GraphBuilder(5, "fix16")
    x = g.conv(g.input((4, 4, 3)), 8, (1, 1), (1, 1), (0, 0, 0, 0))
    g.pool(x, "max", Window((2, 2)), counted=False)
    text, arrays = print_graph(g.graph())
    if change[0] not in text:
        text = text.replace(" weight=@0", " low=-5 weight=@0")
    with pytest.raises(ModelError, match=message):
        parse_graph(text.replace(*change, 1), arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("tiling", "tilling"), r'line 1: want tiling "name" design HASH'),
        (("group", "gruop"), r'want group "name" \{'),
        ((" rows x", " rws x"), "want a ring as in maps.0"),
        (("for y", "for z"), "want for y in 0:HEIGHT"),
        (("conv ", "convey "), "want load, conv, dwc, vec, view or save"),
    ],
)
def test_broken_tiling_text_names_the_line(change: tuple[str, str], message: str) -> None:
    text = str(schedule(_block(), Arch.preset("b1024")).tiling)
    with pytest.raises(ProgramError, match=message):
        TileProgram.parse(text.replace(*change, 1))


def test_a_tiling_cut_off_says_what_is_missing() -> None:
    text = str(schedule(_block(), Arch.preset("b1024")).tiling).rstrip()
    with pytest.raises(ProgramError, match="the text ends where } should stand"):
        TileProgram.parse(text[:-1])


def test_comments_and_blank_lines_are_no_part_of_a_tiling() -> None:
    tiling = schedule(_block(), Arch.preset("b1024")).tiling
    noisy = "\n".join(f"  {line}   # why" for line in str(tiling).splitlines()) + "\n\n# end\n"
    assert TileProgram.parse(noisy) == tiling
