"""The page's script in a real browser, under the page's own content security policy."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tilewright as tw
from tilewright.reports.page import page

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = pytest.mark.skipif(BROWSER is None, reason="chromium is not installed")

PROBE = """
(() => {
  const $ = (id) => document.getElementById(id), out = {}, table = $("table"), rows = () => [...table.tBodies[0].rows];
  const column = (i) => rows().map((r) => r.cells[i].querySelector("data") ? +r.cells[i].querySelector("data").value : r.cells[i].textContent);
  out.violations = window.seen;
  out.alerts = window.alerts;
  const button = (i) => table.tHead.rows[0].cells[i].querySelector("button");
  button(4).click(); out.falling = column(4);
  button(4).click(); out.rising = column(4);
  const filter = $("filter");
  filter.value = rows()[0].cells[1].textContent; filter.dispatchEvent(new Event("input"));
  out.filtered = rows().filter((r) => !r.hidden).length; out.said = $("shown").textContent;
  filter.value = ""; filter.dispatchEvent(new Event("input"));
  const mark = document.querySelector("svg .mark");
  mark.dispatchEvent(new PointerEvent("pointermove", { clientX: 50, clientY: 50 }));
  out.tip = $("tip").hidden ? null : $("tip").textContent;
  out.linked = rows().filter((r) => r.classList.contains("here")).map((r) => r.dataset.layer);
  out.layer = mark.dataset.layer;
  const canvas = $("canvas"); out.whole = $("window").textContent;
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "+" })); out.zoomed = $("window").textContent;
  canvas.dispatchEvent(new KeyboardEvent("keydown", { key: "0" })); out.back = $("window").textContent;
  const before = getComputedStyle(document.body).backgroundColor;
  $("theme").click(); out.turned = before !== getComputedStyle(document.body).backgroundColor;
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  out.colours = new Set(Array.from({ length: pixels.length / 4 }, (_, i) => pixels.slice(4 * i, 4 * i + 3).join())).size;
  const row = rows()[0]; row.focus(); row.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
  out.walked = document.activeElement === rows()[1];
  document.body.textContent = ""; document.body.dataset.out = JSON.stringify(out);
})();
"""
WATCH = """
window.seen = []; window.alerts = 0; window.alert = () => { window.alerts += 1; };
addEventListener("securitypolicyviolation", (e) => window.seen.push(e.violatedDirective + " " + e.blockedURI));
addEventListener("error", (e) => window.seen.push(e.message));
"""


def digest(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def probed(html: str, folder: Path) -> dict[str, Any]:
    """What the probe finds in the page, whose policy is widened by the two scripts of this test and nothing else."""
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
        [*command, "--virtual-time-budget=4000", "--dump-dom", path.as_uri()],
        capture_output=True,
        timeout=120,
        check=False,
    )
    found = re.search(r'data-out="(.*?)"', done.stdout.decode(), re.S)
    assert found, "the probe did not run to its end"
    text = found[1].replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    answer: dict[str, Any] = json.loads(text)
    return answer


def test_table_drawings_and_timeline_work_together_and_nothing_is_refused(tmp_path: Path) -> None:
    result = tw.compile("zoo:tiny", "b512", synthetic_calibration=True).simulate()
    segment = result.segments[0]
    layers = segment.simulation.layers
    hostile = replace(layers[0], name="</script><img src=x onerror=alert(1)><script>alert(1)</script>")
    simulation = replace(segment.simulation, layers=(hostile, *layers[1:]))
    out = probed(page(replace(result, segments=(replace(segment, simulation=simulation),))), tmp_path)
    assert out["violations"] == []
    assert out["alerts"] == 0
    assert out["falling"] == sorted(out["falling"], reverse=True)
    assert out["rising"] == sorted(out["rising"])
    assert out["filtered"] == 1
    assert out["said"] == f"1 of {len(layers)} layers"
    assert out["tip"]
    assert out["linked"] == [out["layer"]]
    assert out["zoomed"] != out["whole"] == out["back"]
    assert out["turned"]
    assert out["walked"]
    assert out["colours"] > 5
