"""`tilewright explain`: what it says of groups adds up, its alternatives are programs, its steps are machines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tilewright as tw
from tilewright.cli import main
from tilewright.compiled import Compiled
from tilewright.explained import Explanation, explain
from tilewright.explained_groups import BINDS
from tilewright.explained_steps import steps
from tilewright.frontend import zoo
from tilewright.frontend.zoo_blocks import NetworkBuilder
from tilewright.hwsim.dram import parse
from tilewright.ir.arch import Arch
from tilewright.ir.errors import ReportError
from tilewright.ir.tile import TileProgram
from tilewright.scheduler import Objective, lower
from tilewright.scheduler.alternatives import Alternatives
from tilewright.scheduler.occupancy import staying

SLOW = "fixed:2"
"""Bytes a cycle: DRAM binds."""


@pytest.fixture(scope="module")
def tiny() -> Compiled:
    return tw.compile("zoo:tiny", "b512", synthetic_calibration=True)


@pytest.fixture(scope="module")
def mobile() -> Compiled:
    """A quarter of MobileNetV2 on 64 x 64 pixels."""
    network = zoo.build("mobilenet_v2", width=0.25, resolution=64)
    return tw.compile(network, "b512", synthetic_calibration=True, set={"maps.kib": 32})


def _only(*names: str) -> pytest.MonkeyPatch:
    """Steps of these resources alone: each takes a schedule of the whole network."""
    patch = pytest.MonkeyPatch()
    patch.setattr("tilewright.explained.steps", lambda *a: (s for s in steps(*a) if s.resource in names))
    return patch


@pytest.fixture(scope="module")
def explained(mobile: Compiled) -> Iterator[Explanation]:
    patch = _only("one more DMA port", "+64 KiB of maps")
    yield explain(mobile, "block1.depthwise")
    patch.undo()


# -- groups ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["tiny", "mobile"])
def test_groups_add_up_to_the_network(name: str, request: pytest.FixtureRequest) -> None:
    """Cycles and bytes, with the instructions that belong to no group; engines' work, too."""
    compiled: Compiled = request.getfixturevalue(name)
    found, total = explain(compiled, relax=False), compiled.simulate().total
    assert found.cycles == total.cycles == sum(g.span.cycles for g in found.groups)
    moved = sum(g.span.dram_bytes for g in found.groups)
    assert found.dram_bytes == total.dram_bytes["total"] == moved + found.fetch_bytes
    for engine in ("conv", "dwc", "vec"):
        assert sum(g.busy.get(engine, 0) for g in found.groups) == total.engines[engine].busy
    assert [g.number for g in found.groups] == list(range(1, len(found.groups) + 1))
    assert {g.binds for g in found.groups} <= {*BINDS, ""}
    assert all(g.map_words + g.held_words <= compiled.arch.map_words for g in found.groups)
    assert not found.edited


def test_a_slow_memory_binds_and_is_named(mobile: Compiled) -> None:
    slow = explain(mobile.with_dram(SLOW), relax=False)
    share = sum(g.span.cycles for g in slow.groups if g.binds == "DRAM") / slow.cycles
    assert share > 0.5
    worst = max(slow.groups, key=lambda g: g.span.dram_bytes)
    assert "the memory moves 2.0 bytes a cycle" in worst.because


@pytest.mark.parametrize(("stride", "doubled"), [(2, False), (4, True)])
def test_words_in_one_bank_bind_where_pixels_are_far_apart(stride: int, doubled: bool) -> None:
    """Eight banks, four pixels a cycle: at stride 2 each has its own, at stride 4 they lie in two and take two cycles."""
    net = NetworkBuilder("strided", (3, 64, 64), seed=1, batch_norm=False)
    x = net.conv(net.input, 64, 1, name="wide", act="relu")
    x = net.conv(x, 64, 3, name="strided", stride=stride, act="relu")
    compiled = tw.compile(net.finish([x]), "b512", synthetic_calibration=True)
    group = next(g for g in explain(compiled, relax=False).groups if "strided" in g.layers)
    assert (group.bank_cycles > 0.3 * group.busy["conv"]) == doubled
    assert (group.binds == "bank") == doubled
    assert (f"{group.bank_cycles:,} of them" in group.because) == doubled


def test_homes_of_maps_are_those_of_the_text(mobile: Compiled) -> None:
    """What is loaded and saved is in the text; what stays is neither."""
    for g, facts in zip(mobile.plans[0].tiling.groups, explain(mobile, relax=False).groups, strict=True):
        assert set(facts.loads) == {s.tensor for s in g.statements if s.kind == "load"}
        assert set(facts.saves) == {s.tensor for s in g.statements if s.kind == "save"}
        assert not set(facts.reads) & set(facts.loads)
        assert set(facts.keeps) | set(facts.saves), g.name


# -- alternatives ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["tiny", "mobile"])
def test_a_plan_from_its_own_groups_is_itself(name: str, request: pytest.FixtureRequest) -> None:
    """So that what an alternative costs is due to the one thing that differs."""
    compiled: Compiled = request.getfixturevalue(name)
    for plan in compiled.plans:
        peak = parse(compiled.dram, compiled.arch.clock_mhz).peak_bytes_per_cycle
        assert Alternatives(plan, dram_bytes_per_cycle=peak).again() == plan.tiling


def test_every_alternative_computes_the_same_bytes(mobile: Compiled) -> None:
    """Each is lowered, verified and emulated; and differs where it says."""
    plan = mobile.plans[0]
    others = Alternatives(plan)
    number = next(n for n, run in enumerate(others.runs) if run[1] - run[0] > 2)
    feeds, kinds = mobile.noise(seed=3), set()
    want = mobile.run(feeds)
    for a in others.of(number):
        kinds.add(a.about)
        if a.tiling is None:
            assert a.refusal
            continue
        assert a.tiling != plan.tiling
        other = replace(mobile, plans=(lower(a.tiling, plan.graph, plan.arch), *mobile.plans[1:]))
        for name, value in other.run(feeds).items():
            assert np.array_equal(value, want[name]), a.name
        cuts = {g.name for g in a.tiling.groups} ^ {g.name for g in plan.tiling.groups}
        assert bool(cuts) == (a.about == "fusion"), a.name
    assert {"rows", "fusion", "map"} <= kinds


def test_a_map_by_way_of_dram_crosses_the_port_twice(mobile: Compiled) -> None:
    plan = mobile.plans[0]
    others = Alternatives(plan)
    number = next(n for n, run in enumerate(others.runs) if run[0] and staying(plan.tiling, n))
    for a in others.of(number):
        if a.name.endswith("by way of DRAM") and a.tiling is not None:
            tensor = a.name.removeprefix("%").removesuffix(" by way of DRAM")
            moved = plan.graph.tensors[tensor].bytes
            assert a.before is not None
            assert a.price is not None
            assert a.price.dram_bytes - a.before.dram_bytes >= 2 * moved
            kinds = [s.kind for g in a.tiling.groups for s in g.statements if s.tensor == tensor]
            assert {"load", "save"} <= set(kinds)
            return
    pytest.fail("no map stays on chip")


def test_what_cannot_be_is_refused_with_numbers(mobile: Compiled) -> None:
    """Weights that do not fit at once forbid a fusion."""
    small = mobile.on(mobile.arch.override({"weights.kib": 16}))
    others = Alternatives(small.plans[0])
    refusals = (
        a.refusal
        for n in reversed(range(len(others.runs)))
        for a in others.of(n)
        if a.name == "one group with the one before" and a.tiling is None
    )
    text = next(text for text in refusals if "constants" in text)
    assert f"of {small.arch.weight_words:,} weight words" in text


@pytest.mark.parametrize(("objective", "key"), [("energy", "dram_bytes"), ("latency", "cycles")])
def test_alternatives_are_ranked_by_the_objective(mobile: Compiled, objective: Objective, key: str) -> None:
    found = explain(mobile.on(mobile.arch, objective=objective), "block1.depthwise", relax=False).group
    assert found is not None
    values = [getattr(r.cost, key) for r in found.rivals if r.cost is not None]
    assert len(values) > 1
    assert values == sorted(values)


# -- the explanation of a layer ----------------------------------------------------------------------------------------
def test_the_runner_up_is_the_first_of_the_others(explained: Explanation) -> None:
    assert explained.group is not None
    assert explained.group.runner_up is explained.group.rivals[0]
    assert explained.group.estimate is not None
    assert all(r.refusal for r in explained.group.rivals if r.cost is None)


def test_gains_are_of_networks_scheduled_anew(explained: Explanation, mobile: Compiled) -> None:
    """A gain equals what compiling for that machine gives."""
    gain = next(g for g in explained.gains if g.resource == "one more DMA port")
    assert gain.change == "dma.ports 2 -> 3"
    assert gain.cost is not None
    direct = mobile.on(mobile.arch.override({"dma.ports": 3})).simulate().total
    assert (gain.cost.cycles, gain.cost.dram_bytes) == (direct.cycles, direct.dram_bytes["total"])
    assert explained.own.cycles == explained.cycles
    for g in explained.gains:
        assert g.cost is None or g.cost.before is not None


def test_a_faster_memory_helps_where_memory_binds(mobile: Compiled) -> None:
    patch = _only("one more DMA port", "twice the DRAM rate")
    found = explain(mobile.on(mobile.arch, dram=SLOW))
    patch.undo()
    by_name = {g.resource: g.cost for g in found.gains}
    faster, wider = by_name["twice the DRAM rate"], by_name["one more DMA port"]
    assert faster is not None
    assert wider is not None
    assert faster.cycles < 0.8 * found.own.cycles
    assert wider.cycles > 0.95 * found.own.cycles
    assert "2.0 bytes a cycle, the ports 32 already" in next(
        g.note for g in found.gains if g.resource == "one more DMA port"
    )


# -- steps -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["b512", "b1152", "b3136", "b4096", "b4096-nodw"])
def test_steps_are_machines_that_can_be_built(name: str) -> None:
    """Where the step itself cannot be, the next size is taken, and it is said."""
    arch, memory = Arch.preset(name), parse("banked:DDR4-2400x64")
    found = {s.resource: s for s in steps(arch, memory)}
    for step in found.values():
        assert step.arch is not None, step
        assert step.arch.design_hash != arch.design_hash or step.memory != memory
    maps, weights = found["+64 KiB of maps"], found["+64 KiB of weights"]
    assert maps.arch is not None
    assert weights.arch is not None
    for size, before, step in (
        (maps.arch.maps.kib, arch.maps.kib, maps),
        (weights.arch.weights.kib, arch.weights.kib, weights),
    ):
        assert size >= before + 64
        assert (size == before + 64) == ("cannot be built" not in step.note)
    more = found["one more map group"].arch
    assert more is not None
    assert more.group_words >= arch.group_words
    assert found["twice the DRAM rate"].memory.peak_bytes_per_cycle == 2 * memory.peak_bytes_per_cycle


def test_a_step_beyond_the_limit_is_refused_with_the_limit() -> None:
    arch = Arch.preset("b512").override({"dma.ports": 4, "maps.groups": 8})
    found = {s.resource: s for s in steps(arch, parse(SLOW))}
    assert found["one more DMA port"].arch is None
    assert "less than or equal to 4" in found["one more DMA port"].note
    assert found["one more map group"].arch is None


# -- the verb ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def folder(tiny: Compiled, tmp_path: Path) -> Path:
    tiny.save(tmp_path)
    return tmp_path


def _json(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert main(["explain", *words, "--json"]) == 0, capsys.readouterr().err
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def test_the_verb_lists_groups_and_explains_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The text of a group is the one of tiling.txt: it can be edited there and fed back."""
    whole = _json(capsys, str(folder), "--no-relax")
    assert whole["schema"] == "tilewright.explanation/1"
    assert (whole["claim"], whole["group"], whole["gains"]) == ("simulated", None, [])
    assert main(["explain", str(folder), "stem", "--no-relax"]) == 0
    text = capsys.readouterr().out
    assert "simulated" in text
    assert "estimate" in text
    one = _json(capsys, str(folder), "stem", "--no-relax")
    tiling = (folder / "tiling.txt").read_text()
    head = tiling.splitlines()[0]
    (group,) = TileProgram.parse(head + "\n\n" + one["group"]["tiling"]).groups
    assert group == TileProgram.parse(tiling).groups[0]
    assert one["group"]["tiling"].splitlines()[0] in text


def test_a_folded_table_is_found_where_it_is_looked_up(tiny: Compiled) -> None:
    plan = tiny.plans[0]
    folded = next(n for n, e in zip(plan.layers, plan.engines, strict=True) if e == "folded")
    found = explain(tiny, folded, relax=False)
    assert found.group is not None
    assert folded not in found.groups[found.group.number - 1].layers


def test_an_edited_text_is_explained_as_edited(folder: Path) -> None:
    """Its numbers are those of the edited program; the scheduler's own are beside them."""
    path = folder / "tiling.txt"
    tiling = TileProgram.parse(path.read_text())
    first = next(n for n, g in enumerate(tiling.groups) if g.rows > 1 and g.strips > 1)
    edited = replace(tiling.groups[first], rows=1)
    path.write_text(
        str(replace(tiling, groups=(*tiling.groups[:first], edited, *tiling.groups[first + 1 :])))
    )
    compiled = Compiled.load(folder)
    found = explain(compiled, edited.name, relax=False)
    assert found.edited
    assert found.cycles == compiled.simulate().total.cycles != found.own.cycles
    assert found.group is not None
    assert "step 1 {" in found.group.tiling


def test_an_unknown_layer_is_refused_with_the_nearest(
    folder: Path, tiny: Compiled, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ReportError, match=r"no layer 'stemm' among .*did you mean stem"):
        explain(tiny, "stemm", relax=False)
    assert main(["explain", str(folder), "stemm"]) == 2
    assert "did you mean stem" in capsys.readouterr().err
