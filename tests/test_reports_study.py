"""A study's page in a real browser under its own policy, and its figures."""

from __future__ import annotations

import json
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from test_reports_browser import BROWSER, WATCH, digest
from tilewright.reports.study import Agreement, Aim, Candidate, Group, StudyFacts, grouped
from tilewright.reports.study_figures import STUDY_FIGURES, draw_study
from tilewright.reports.study_page import DRAWN, study_page

HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(1)</script>"
PROBE = """
(() => {
  const $ = (id) => document.getElementById(id), out = {}, table = $("table"), rows = () => [...table.tBodies[0].rows];
  out.violations = window.seen; out.alerts = window.alerts;
  const painted = (id) => { const c = $(id), p = c.getContext("2d").getImageData(0, 0, c.width, c.height).data; return new Set(Array.from({ length: p.length / 4 }, (_, i) => p.slice(4 * i, 4 * i + 3).join())).size; };
  out.colours = [painted("scatter"), painted("parallel")];
  out.all = $("shown").textContent;
  const box = $("parallel").getBoundingClientRect();
  const drag = (kind, y, target) => target.dispatchEvent(new PointerEvent(kind, { clientX: box.left + box.width - 60, clientY: box.top + y, bubbles: true, pointerId: 1 }));
  drag("pointerdown", 47, $("parallel")); drag("pointermove", 150, $("parallel")); drag("pointerup", 150, window);
  out.kept = $("shown").textContent; out.clear = !$("clear").hidden;
  $("clear").click(); out.cleared = $("shown").textContent;
  rows()[0].focus(); rows()[0].dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
  out.walked = document.activeElement === rows()[1] && rows()[1].classList.contains("here");
  const scatter = $("scatter").getBoundingClientRect();
  out.tip = "";
  for (let x = 60; x < scatter.width && !out.tip; x += 6) for (let y = 10; y < 400; y += 6) {
    $("scatter").dispatchEvent(new PointerEvent("pointermove", { clientX: scatter.left + x, clientY: scatter.top + y }));
    if (!$("tip").hidden) { out.tip = $("tip").textContent; break; }
  }
  table.tHead.rows[0].cells[2].querySelector("button").click();
  out.sorted = rows().map((r) => +r.cells[2].querySelector("data").value);
  $("x").value = "1"; $("x").dispatchEvent(new Event("change"));
  const before = getComputedStyle(document.body).backgroundColor;
  $("theme").click(); out.turned = before !== getComputedStyle(document.body).backgroundColor;
  document.body.textContent = ""; document.body.dataset.out = JSON.stringify(out);
})();
"""


def facts(designs: int = 60) -> StudyFacts:
    """A made-up study: latency against DSP, one axis of hostile words."""
    candidates = []
    for n in range(designs):
        latency, dsp = 1.0 + (n * 37 + designs // 2) % designs, 100.0 + n
        candidates.append(
            Candidate(
                n, f"{n:020d}", (n % 2, n % 3), (latency, dsp), (latency * 1.02, dsp) if n % 4 == 0 else ()
            )
        )
    known = [c for c in candidates if c.simulated]
    best = [
        c
        for c in known
        if not any(d.simulated[0] < c.simulated[0] and d.simulated[1] < c.simulated[1] for d in known)
    ]
    front = {c.number for c in best}
    return StudyFacts(
        title=f"Study {HOSTILE}",
        networks=("net",),
        aims=(Aim("latency", "latency", "ms", False, False), Aim("dsp", "DSP", "", False, True)),
        axes={"conv.pixels": ("4", "8"), "model.variant": (HOSTILE, "b", "c")},
        candidates=tuple(replace(c, front=c.number in front, drawn=c.number % 8 == 0) for c in candidates),
        claim="simulated",
        method="exhaustive",
        space_size=designs + 7,
        met=designs + 7,
        evaluated=designs,
        simulated=len(known),
        complete=True,
        margin=0.05,
        seconds=1.5,
        hypervolume=0.5,
        infeasible=(Group("needs … DSP, has 4", 6, "needs 9 DSP, has 4"),),
        failed=(Group(HOSTILE, 1, HOSTILE),),
        agreements=(Agreement("latency", "all simulated", len(known), 0.02, 0.02, -0.02, 1.0),),
        sensitivity={
            "conv.pixels": {"latency": 0.25, "dsp": 0.5},
            "model.variant": {"latency": 0.75, "dsp": 0.0},
        },
        picks=(("Balanced", best[0].design),),
        provenance={"seed": "0"},
        space_toml=f'title = "{HOSTILE}"',
    )


def probed(html: str, folder: Path) -> dict[str, Any]:
    allowed = f"script-src 'sha256-{digest(WATCH)}' 'sha256-{digest(PROBE)}' "
    html = html.replace("script-src ", allowed, 1).replace("<title>", f"<script>{WATCH}</script><title>", 1)
    html = html.replace("</body>", f"<script>{PROBE}</script></body>")
    path = folder / "page.html"
    path.write_text(html, encoding="utf-8")
    assert BROWSER is not None
    command = [
        BROWSER,
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={folder / 'profile'}",
    ]
    done = subprocess.run(
        [*command, "--window-size=1240,2000", "--virtual-time-budget=4000", "--dump-dom", path.as_uri()],
        capture_output=True,
        timeout=120,
        check=False,
    )
    found = re.search(r'data-out="(.*?)"', done.stdout.decode(), re.S)
    assert found, "the probe did not run to its end"
    text = found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    answer: dict[str, Any] = json.loads(text)
    return answer


@pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")
def test_scatter_parallel_coordinates_and_table_work_together(tmp_path: Path) -> None:
    """A range on one axis thins both drawings; a design is marked in all three; nothing is refused."""
    out = probed(study_page(facts()), tmp_path)
    assert out["violations"] == []
    assert out["alerts"] == 0
    assert min(out["colours"]) > 5
    assert out["all"] == out["cleared"] == "60 of 60 designs"
    assert 0 < int(out["kept"].split()[0]) < 60
    assert out["clear"]
    assert out["walked"]
    assert out["tip"].startswith("design ")
    assert out["sorted"] == sorted(out["sorted"])
    assert out["turned"]


def test_the_page_says_everything_without_scripts() -> None:
    html = study_page(facts())
    for text in ("needs … DSP, has 4", "75%", "-2.00%", "simulated", "estimate", "60 keep every constraint"):
        assert text in html
    assert "<img" not in html
    assert html.count("<script") == 2


def test_a_large_study_stays_a_small_file() -> None:
    """Front and simulated designs are all drawn, the others evenly; the page says so."""
    many = facts(9000)
    many = replace(
        many,
        candidates=tuple(
            replace(c, simulated=c.simulated if c.number < 400 else ()) for c in many.candidates
        ),
    )
    many = replace(
        many, candidates=tuple(replace(c, front=c.front and bool(c.simulated)) for c in many.candidates)
    )
    html = study_page(many)
    assert len(html) < 300_000
    assert f"{9000 - DRAWN:,} estimated designs are left out" in html


@pytest.mark.parametrize("name", STUDY_FIGURES)
def test_figures_are_the_same_bytes_for_the_same_study(name: str) -> None:
    first, second = draw_study(name, facts()), draw_study(name, facts())
    assert set(first) == {"svg", "png"}
    assert first == second
    assert draw_study(name, replace(facts(), candidates=())) == {}


def test_reasons_that_differ_in_numbers_are_one_group() -> None:
    groups = grouped(
        [
            ("a", ["b1024+ needs 9 DSP, kv260 has 4", "too fast"]),
            ("b", ["b1024+ needs 8.5 DSP, kv260 has 4"]),
            ("c", ["too fast", "too fast"]),
        ]
    )
    assert [(g.reason, g.count) for g in groups] == [("b1024+ needs … DSP, kv260 has 4", 2), ("too fast", 2)]
