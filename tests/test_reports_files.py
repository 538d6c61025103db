"""Every file of a report: valid, safe, deterministic, and of one mind about the numbers."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from tilewright.hwsim.resources import ResourceUse
from tilewright.hwsim.results import CAUSES, Bounds, Energy, EngineResult, LayerResult, Simulation, Timeline
from tilewright.ir.arch import Arch
from tilewright.ir.errors import ReportError
from tilewright.ir.isa import Engine, Opcode, Program, instruction
from tilewright.reports import summary, write
from tilewright.reports.figures import FIGURES, draw
from tilewright.reports.files import NAMES
from tilewright.reports.page import SLICES, page, timeline_data
from tilewright.reports.result import Exact, HostSegment, ModelFacts, Result, Segment
from tilewright.reports.tables import layers_csv
from tilewright.reports.trace import chrome_trace

HOSTILE = "</script><script>alert(1)</script>'\"&$\\frac{1}{0}$\u202e\x00\ud800,=1+1 " + "n" * 300


def simulated(
    layers: int = 12, *, arch: str = "b1024", seed: int = 0, name: str = "net", hostile: bool = False
) -> Segment:
    """A program of load, compute, save tiles and its times: small, but with every law that a simulation keeps."""
    rng = np.random.default_rng(seed)
    machine = Arch.preset(arch)
    free = dict.fromkeys(Engine, 0)
    done = dict.fromkeys(Engine, 0)
    times: list[tuple[int, ...]] = []
    rows, owner, traffic = [], [], []
    stalls = {e: dict.fromkeys(CAUSES, 0) for e in Engine}
    busy = dict.fromkeys(Engine, 0)
    results = []

    def run(
        engine: Engine,
        layer: int,
        cycles: int,
        *,
        after: tuple[Engine, ...] = (),
        moved: int = 0,
        kind: int = 0,
    ) -> None:
        ready = max((done[e] for e in after), default=0)
        blocker = max(after, key=lambda e: done[e], default=engine)
        start = max(free[engine], ready)
        cause = CAUSES.index(blocker.name.lower()) if ready > free[engine] else 0
        stalls[engine][CAUSES[cause]] += start - free[engine]
        times.append(
            (len(rows), engine, layer, free[engine], start, start + cycles, start + cycles + 7, cause)
        )
        busy[engine] += cycles
        free[engine], done[engine] = start + cycles, start + cycles + 7
        opcode = {
            Engine.LOAD: Opcode.LOAD,
            Engine.SAVE: Opcode.SAVE,
            Engine.CONV: Opcode.CONV,
            Engine.DWC: Opcode.DWC,
        }
        fields = {"run_bytes": moved, "runs1": 1, "runs2": 1} if engine in {Engine.LOAD, Engine.SAVE} else {}
        rows.append(instruction(opcode.get(engine, Opcode.VEC), **fields))
        owner.append(layer)
        traffic.append(kind)

    totals = {"ifmap": 0, "weights": 0, "ofmap": 0}
    for i in range(layers):
        kind = i % 4
        engine = Engine.VEC if kind == 3 else Engine.DWC if kind == 1 and machine.has_dwc else Engine.CONV
        peak = machine.depthwise_macs_per_cycle if engine == Engine.DWC else machine.macs_per_cycle
        own = dict.fromkeys(Engine, 0)
        dram = {"ifmap": 0, "weights": 0, "ofmap": 0}
        first = len(times)
        tiles = int(rng.integers(1, 5))
        for _ in range(tiles):
            spent = int(rng.integers(400, 3000))
            weights = int(rng.integers(500, 6000)) if engine != Engine.VEC else 0
            image = int(rng.integers(1000, 8000)) if i % 3 == 0 else 0
            for size, label, number in ((weights, "weights", 2), (image, "ifmap", 1)):
                if size:
                    run(Engine.LOAD, i, size // 16, moved=size, kind=number)
                    own[Engine.LOAD] += size // 16
                    dram[label] += size
            run(engine, i, spent, after=(Engine.LOAD,) if weights or image else (Engine.CONV,))
            own[engine] += spent
            if i % 5 == 4 or i == layers - 1:
                run(Engine.SAVE, i, 300, after=(engine,), moved=4096, kind=3)
                own[Engine.SAVE] += 300
                dram["ofmap"] += 4096
        macs = 0 if engine == Engine.VEC else int(own[engine] * peak * rng.uniform(0.3, 0.98))
        for key, value in dram.items():
            totals[key] += value
        results.append(
            LayerResult(
                name=f"{HOSTILE}{i}"
                if hostile
                else f"features.{i}.{('expand', 'depthwise', 'project', 'add')[kind]}",
                op="Add" if engine == Engine.VEC else "Conv",
                engine=engine.name.lower(),
                busy={e.name.lower(): n for e, n in own.items() if n},
                first_cycle=min(t[4] for t in times[first:]),
                last_cycle=max(t[6] for t in times[first:]),
                macs=macs,
                bound_cycles=-(-macs // peak),
                dram_bytes=dram,
                onchip_read_bytes=int(rng.integers(10_000, 400_000)),
                onchip_write_bytes=int(rng.integers(5_000, 90_000)),
                energy_mj={"mac": macs * 4e-10, "dram": sum(dram.values()) * 8e-8, "maps": 3e-4 * tiles},
                limited_by="compute" if i % 2 else "load",
            )
        )
    cycles = max(done.values()) + 40
    columns = np.array(times, np.int64).T
    words = 64 * (len(times) + 1)
    energy: dict[str, float] = {}
    for layer in results:
        for key, value in layer.energy_mj.items():
            energy[key] = energy.get(key, 0.0) + value
    energy |= {"static": cycles * 2e-6, "control": words * 1e-7}
    least = totals["weights"] + totals["ifmap"] // 4
    simulation = Simulation(
        cycles=cycles,
        clock_mhz=machine.clock_mhz,
        macs=sum(x.macs for x in results),
        macs_per_cycle=machine.macs_per_cycle,
        dram_bytes={
            **totals,
            "instructions": words,
            "total": sum(totals.values()) + words,
            "compulsory": least,
        },
        energy=Energy(
            energy,
            "fpga16",
            True,
            ("mac: 3 pJ, 16 nm, own estimate, ±50 %", "dram: 18 pJ/bit, DDR4, ±30 %"),
            0.4,
        ),
        engines={
            e.name.lower(): EngineResult(
                busy[e],
                {c: n for c, n in stalls[e].items() if n},
                cycles - free[e],
                sum(t[1] == e for t in times),
            )
            for e in Engine
        },
        layers=tuple(results),
        bounds=Bounds(max(busy.values()) // 2, max(1, least // 32), 1000, least),
        estimate_cycles=max(busy.values()),
        dram="DDR4-2400 x64, banked",
        network=name,
        arch=arch,
        board="kv260",
        design=machine.design_hash,
        timeline=Timeline(
            index=columns[0].astype(np.int32),
            engine=columns[1].astype(np.int8),
            layer=columns[2].astype(np.int32),
            queued=columns[3],
            start=columns[4],
            busy_end=columns[5],
            done=columns[6],
            cause=columns[7].astype(np.int8),
        ),
    )
    program = Program(
        fields=np.array([*rows, instruction(Opcode.END)]),
        weights=np.zeros(16, np.uint8),
        maps_bytes=64,
        design=machine.design_hash,
        layer=np.array([*owner, -1], np.int32),
        traffic=np.array([*traffic, 0], np.int8),
    )
    return Segment(simulation, program)


def result(
    layers: int = 12, *, arch: str = "b1024", segments: int = 1, hostile: bool = False, twin: bool = True
) -> Result:
    parts = tuple(simulated(layers, arch=arch, seed=i, hostile=hostile) for i in range(segments))
    return Result(
        model=ModelFacts(
            HOSTILE if hostile else "MobileNetV2",
            sum(p.simulation.macs for p in parts),
            3_504_872,
            ("data 1x3x224x224",),
        ),
        arch=Arch.preset(arch),
        segments=parts,
        board="kv260",
        dram_peak=64.0,
        host_segments=(HostSegment("tail", (("softmax", "Softmax"),), "no integer form", 0.12),)
        if segments > 1
        else (),
        exact=Exact(6_412_000, 0),
        calibration="synthetic",
        resources=(ResourceUse("DSP", 612, 1248), ResourceUse("LUT", 61_000, 117_120, exact=False)),
        provenance={"tilewright": "0.1.0", "seed": "0"},
        without_dwc=result(layers, arch=f"{arch}-nodw", twin=False) if twin else None,
    )


CASES = {
    "one layer": lambda: result(1),
    "twelve layers": result,
    "three hundred layers": lambda: result(300),
    "no depthwise engine": lambda: result(arch="b512-nodw", twin=False),
    "two segments and the host": lambda: result(segments=2),
    "hostile names": lambda: result(hostile=True),
}


@pytest.fixture(scope="module", params=CASES)
def case(request: pytest.FixtureRequest) -> Result:
    return CASES[request.param]()


VOID = {"meta", "input", "br", "link", "img", "hr"}


class Reader(HTMLParser):
    """Elements with their attributes, text by element, and whether every element is closed where it should be."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.text.setdefault(self.open[-1] if self.open else "", []).append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


def block(html: str, name: str) -> Any:
    """The JSON block of this id."""
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', html, re.S)
    assert found
    return json.loads(found[1])


def test_page_is_balanced_html_and_every_mark_names_a_layer(case: Result) -> None:
    reader = Reader(page(case))
    assert reader.open == []
    layers = {str(i + 1) for i in range(len(case.total.layers))}
    marks = [a["data-layer"] for a in reader.all("circle")]
    assert set(marks) <= layers
    assert len([a for a in reader.all("tr") if "data-layer" in a]) == len(layers)
    assert len(set(marks)) == sum(1 for x in case.total.layers if x.macs)


def test_policy_names_the_only_script_and_style_by_their_hashes_and_forbids_the_rest(case: Result) -> None:
    html = page(case)
    reader = Reader(html)
    policy = next(
        a["content"] for a in reader.all("meta") if a.get("http-equiv") == "Content-Security-Policy"
    )
    assert policy is not None
    assert policy.startswith("default-src 'none';")
    assert "unsafe" not in policy
    style = re.search(r"<style>(.*?)</style>", html, re.S)
    script = re.search(r"<script>(.*?)</script>", html, re.S)
    assert style
    assert script
    for text in (style[1], script[1]):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy
    kinds = [a.get("type") for a in reader.all("script")]
    assert kinds == ["application/json", "application/json", None]


def test_page_needs_nothing_from_outside_and_has_no_inline_code(case: Result) -> None:
    for tag, attributes in Reader(page(case)).elements:
        for name, value in attributes.items():
            assert name != "style", f"<{tag} style> is forbidden by the page's own policy"
            assert not name.startswith("on"), f"<{tag} {name}>"
            if name in {"src", "href", "srcset", "action", "data", "xlink:href"}:
                assert value is not None
                assert value.startswith("#"), f"<{tag} {name}={value!r}>"
    assert not re.search(r"https?://|//cdn|@import|url\(", page(result()))


def test_hostile_names_stay_names() -> None:
    html = page(result(hostile=True))
    reader = Reader(html)
    assert not any("alert" in text for text in reader.text["script"] if not text.startswith("{"))
    assert "<script>alert" not in html
    assert any("<script>alert(1)</script>" in text for text in reader.text["th"])
    assert "\x00" not in html
    assert "\u202e" not in html
    html.encode()


def test_page_and_summary_agree_on_every_headline_number(case: Result) -> None:
    html = page(case)
    shown = {a["value"] for a in Reader(html).all("data")}
    told = json.loads(case.to_json())
    wanted = [told[key] for key in ("cycles", "latency_ms", "fps", "gops", "utilization")]
    wanted += [*told["dram_bytes"].values(), *told["energy_mj"].values(), *told["exact"].values()]
    if told["without_dwc"]:
        twin = told["without_dwc"]
        wanted += [twin[key] for key in ("cycles", "latency_ms", "fps", "dram_bytes", "energy_mj")]
    missing = [v for v in wanted if str(v) not in shown]
    assert missing == []
    assert block(html, "summary") == told


def test_summary_has_the_keys_that_scripts_rely_on(case: Result) -> None:
    told = json.loads(case.to_json(["report.html"]))
    assert {
        "schema", "model", "arch", "board", "clock_mhz", "claim", "cycles", "latency_ms", "fps", "utilization",
        "dram_bytes", "energy_mj", "bound_cycles", "exact", "host_segments", "files",
    } <= set(told)  # fmt: skip
    assert {"name", "macs", "parameters"} <= set(told["model"])
    assert {"name", "macs_per_cycle"} <= set(told["arch"])
    assert set(told["dram_bytes"]) == {"total", "ifmap", "weights", "ofmap", "instructions", "compulsory"}
    energy = dict(told["energy_mj"])
    assert energy.pop("total") == pytest.approx(sum(energy.values()))
    assert told["claim"] == "simulated"
    assert told["latency_ms"] == pytest.approx(told["cycles"] / told["clock_mhz"] / 1e3)
    assert json.loads(replace(case, exact=None).to_json())["exact"] is None


def test_columns_of_the_table_sum_to_the_totals(case: Result) -> None:
    rows = list(csv.DictReader(io.StringIO(layers_csv(case))))
    total = case.total
    assert len(rows) == len(total.layers) + 1

    def column(name: str) -> list[float]:
        return [float(row[name] or 0) for row in rows]

    for kind in ("ifmap", "weights", "ofmap", "instructions"):
        assert sum(column(f"dram_{kind}_bytes")) == total.dram_bytes[kind]
    assert sum(column("macs")) == total.macs
    assert sum(column("energy_mj")) == pytest.approx(total.energy.total_mj)
    for name, engine in total.engines.items():
        assert sum(column(f"busy_{name}")) == engine.busy
    assert all(float(row["dram_ifmap_bytes"]) >= 0 for row in rows)


def test_names_in_the_table_are_no_formulas() -> None:
    segment = simulated(1)
    name = "=HYPERLINK(1)"
    layer = replace(segment.simulation.layers[0], name=name)
    changed = replace(segment, simulation=replace(segment.simulation, layers=(layer,)))
    rows = list(csv.DictReader(io.StringIO(layers_csv(replace(result(1), segments=(changed,))))))
    assert rows[0]["name"] == f"'{name}"


def test_trace_has_a_track_an_engine_whose_slices_never_overlap(case: Result) -> None:
    events = json.loads(chrome_trace(case))["traceEvents"]
    names = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    slices: dict[tuple[int, int], list[dict[str, Any]]] = {}
    for event in events:
        if event["ph"] == "X":
            slices.setdefault((event["pid"], event["tid"]), []).append(event)
    assert set(slices) == set(names)
    assert sum(map(len, slices.values())) == sum(e.instructions for e in case.total.engines.values())
    for track in slices.values():
        end = 0.0
        for event in track:
            assert event["ts"] >= end - 1e-6
            end = event["ts"] + event["dur"]
        assert end <= case.total.cycles / case.total.clock_mhz


def test_trace_moves_the_bytes_that_the_simulation_counted(case: Result) -> None:
    events = json.loads(chrome_trace(case))["traceEvents"]
    total = case.total
    for kind in ("ifmap", "weights", "ofmap"):
        moved = sum(
            e["args"].get("bytes", 0) for e in events if e["ph"] == "X" and e["args"].get("class") == kind
        )
        assert moved == total.dram_bytes[kind]
    integral = 0.0
    for pid in {e["pid"] for e in events}:
        counters = [e for e in events if e["ph"] == "C" and e["pid"] == pid]
        step = (counters[1]["ts"] - counters[0]["ts"]) * total.clock_mhz
        integral += sum(sum(e["args"].values()) for e in counters) * step
    assert integral == pytest.approx(total.dram_bytes["total"] - total.dram_bytes["instructions"], rel=0.02)


def test_timeline_of_the_page_keeps_busy_cycles_and_stays_small(case: Result) -> None:
    data = timeline_data(case)
    slices = sum(len(t["start"]) for t in data["tracks"])
    assert 0 < slices <= SLICES
    for track in data["tracks"]:
        assert sum(track["busy"]) == case.total.engines[track["engine"]].busy
        ends = np.array(track["start"]) + np.array(track["length"])
        assert np.all(np.array(track["start"][1:]) >= ends[:-1])
        assert sum(track["count"]) == case.total.engines[track["engine"]].instructions


def test_timeline_of_a_long_program_is_joined_until_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tilewright.reports.page.SLICES", 100)
    data = timeline_data(result(60))
    assert data["gap"] > 0
    assert sum(len(t["start"]) for t in data["tracks"]) <= 100 or data["gap"] > result(60).total.cycles


@pytest.mark.parametrize("name", FIGURES)
@pytest.mark.parametrize("kind", ["svg", "png"])
def test_figures_are_the_same_bytes_each_time_and_carry_no_date(name: str, kind: str) -> None:
    value = result(hostile=True)
    first = draw(name, value, (kind,))[kind]
    assert first == draw(name, value, (kind,))[kind]
    assert first.startswith(b"<?xml" if kind == "svg" else b"\x89PNG")
    assert b"<dc:date>" not in first


@pytest.mark.parametrize("name", FIGURES)
def test_figures_of_every_case_can_be_drawn(case: Result, name: str) -> None:
    root = ElementTree.fromstring(draw(name, case, ("svg",))["svg"])
    assert root.tag.endswith("svg")


def test_a_network_without_traffic_or_macs_is_reported_too(tmp_path: Path) -> None:
    segment = simulated(3)
    layers = tuple(
        replace(x, macs=0, bound_cycles=0, dram_bytes={"ifmap": 0, "weights": 0, "ofmap": 0}, energy_mj={})
        for x in segment.simulation.layers
    )
    nothing = replace(
        segment.simulation,
        layers=layers,
        macs=0,
        dram_bytes=dict.fromkeys(segment.simulation.dram_bytes, 0),
        energy=replace(segment.simulation.energy, components={}),
        bounds=Bounds(0, 0, 0, 0),
        timeline=None,
    )
    value = replace(
        result(3), segments=(Segment(nothing),), without_dwc=None, dram_peak=0.0, resources=(), exact=None
    )
    names = write(value, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)
    Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert json.loads((tmp_path / "trace.json").read_text(encoding="utf-8"))["traceEvents"]


def test_writing_twice_gives_the_same_bytes_and_leaves_only_the_named_files(tmp_path: Path) -> None:
    value = result(4, segments=2)
    seen = []
    first = write(value, tmp_path / "a", others={"net.tw": b"program"}, progress=seen.append)
    assert set(seen) == set(NAMES)
    second = write(value, tmp_path / "b", others={"net.tw": b"program"})
    assert first == second
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == sorted(first)
    for name in first:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert json.loads((tmp_path / "a" / "summary.json").read_text(encoding="utf-8"))["files"] == list(first)


def test_a_directory_that_cannot_be_made_is_named_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(ReportError, match=r"file.*give another directory with -o"):
        write(result(1), tmp_path / "file", figures=False)


def test_a_file_that_cannot_be_written_leaves_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(ReportError, match=r"summary\.json: [\d,]+ bytes cannot be written"):
        write(result(1), tmp_path, figures=False)
    assert [p.name for p in tmp_path.iterdir()] == ["summary.json"]


def test_screen_says_the_numbers_and_stays_a_screen(case: Result) -> None:
    text = summary(case, "out")
    assert f"{case.total.cycles:,} cycles" in text
    assert "synthetic" in text
    assert f"{case.exact.bytes_compared:,} bytes" in text if case.exact else True
    assert len(text.splitlines()) <= 40
    assert "\x1b" not in text
    assert "\x1b[" in summary(case, "out", colour=True)
