"""Verilog made readable says what it said before: random logic, by a solver; and what it looks like."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
from tilewright.rtl.readable import readable

_CHECK = """
from pyosys import libyosys as y
d = y.Design()
def run(command):
    y.run_pass("tee -q -o {log} " + command, d)
for name in ("gold", "gate"):
    run(f"read_verilog {folder}/{{name}}.v")
run("proc")
run("miter -equiv -make_outputs -flatten gold gate both")
run("hierarchy -top both")
run("flatten")
run("sat -verify -prove trigger 0 -show-inputs both")
"""


def _random_module(rng: random.Random, name: str, size: int) -> str:
    """Single operators on numbered wires, as Yosys writes them, of all widths and both signs; registers at the end."""
    inputs = {f"a{i}": rng.choice((1, 1, 3, 8, 8, 13)) for i in range(6)}
    known, lines, declared = dict(inputs), [], []

    read: set[str] = set(inputs)

    def pick(names: list[str]) -> str:
        """One that nobody reads yet, mostly, so that there is much to put in place."""
        fresh = [n for n in names if n not in read]
        name = rng.choice(fresh if fresh and rng.random() < 0.9 else names)
        read.add(name)
        return name

    def item(bits: int | None = None) -> str:
        """Something of a width, or of any."""
        if bits is None:
            return (
                pick(list(known))
                if rng.random() < 0.75
                else f"{{ {pick(list(known))}, {pick(list(known))} }}"
            )
        fitting = [n for n, b in known.items() if b == bits]
        wider = [n for n, b in known.items() if b > bits]
        if fitting and rng.random() < 0.9:
            return pick(fitting)
        if wider:
            return f"{rng.choice(wider)}[{bits - 1}:0]" if bits > 1 else f"{rng.choice(wider)}[0]"
        return f"{bits}'h{rng.getrandbits(bits):x}"

    def signed(text: str) -> str:
        return f"$signed({text})"

    for i in range(size):
        bits = rng.choice((1, 1, 1, 3, 8, 9, 16))
        kind = rng.randrange(9)
        if kind == 0:
            right = f"{item(1)} ? {item(bits)} : {item(bits)}"
        elif kind == 1:
            right = f"{item(bits)} {rng.choice('&|^')} {item(bits)}"
        elif kind == 2:
            right = f"{item()} {rng.choice('+-*')} {item()}"
        elif kind == 3:
            bits, right = 1, f"{item()} {rng.choice(['==', '!=', '<', '>', '<=', '>='])} {item()}"
        elif kind == 4:
            right = f"{rng.choice('~-')} {item()}"
        elif kind == 5:
            bits, right = 1, f"{rng.choice('!&|')} {item()}"
        elif kind == 6:
            right = f"{signed(item())} {rng.choice('+-*')} {signed(item())}"
        elif kind == 7:
            bits, right = 1, f"{signed(item())} {rng.choice('<>')} {signed(item())}"
        else:
            right = rng.choice([f"{item()} >> {item(3)}", item(), f"{item(1)} ? {item()} : {item()}"])
        known[f"n{i}"] = bits
        declared.append(f"  wire {f'[{bits - 1}:0] ' if bits > 1 else ''}n{i};")
        lines.append(f"  assign n{i} = {right};")
    rng.shuffle(lines)
    text = "\n".join(lines)
    unread = [n for n in known if n[0] == "n" and len(re.findall(rf"\b{n}\b", text)) == 1]
    ports = [f"  input {f'[{b - 1}:0] ' if b > 1 else ''}{n};" for n, b in inputs.items()]
    ports += [f"  output {f'[{known[n] - 1}:0] ' if known[n] > 1 else ''}y_{n};" for n in unread]
    outputs = [f"  assign y_{n} = {n};" for n in unread]
    head = f"module {name}({', '.join([*inputs, *(f'y_{n}' for n in unread)])});"
    return "\n".join([head, *declared, *ports, *lines, *outputs, "endmodule", ""])


@pytest.mark.parametrize("seed", range(4))
def test_random_logic_stays_what_it_is(seed: int, tmp_path: Path) -> None:
    """A solver finds no input for which the two differ."""
    pytest.importorskip("pyosys.libyosys", reason="pyosys")
    text = _random_module(random.Random(seed), "gold", 70)
    short = readable(text)
    before, after = (len(re.findall(r"assign n\d+", t)) for t in (text, short))
    assert after < before - 8
    (tmp_path / "gold.v").write_text(text, encoding="utf-8")
    (tmp_path / "gate.v").write_text(short.replace("module gold(", "module gate("), encoding="utf-8")
    script = _CHECK.format(folder=tmp_path, log=tmp_path / "log")
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-500:]


def test_an_expression_that_would_change_its_width_keeps_its_wire() -> None:
    """A sum that drops its carry, a negation in a wider place, a signed comparison's operand."""
    module = dedent("""\
        module m(a, b, y, z, s);
          wire [7:0] n1;
          wire [7:0] n2;
          wire [7:0] n3;
          wire n4;
          input [7:0] a;
          input [7:0] b;
          output [8:0] y;
          output [8:0] z;
          output s;
          assign n1 = a + b;
          assign y = { 1'h0, a } + n1;
          assign n2 = ~ a;
          assign z = n2 + 9'h001;
          assign n3 = a & b;
          assign n4 = n3 > 8'h40;
          assign s = n4;
        endmodule
        """)
    text = readable(module)
    assert "assign n1 = a + b;" in text
    assert "assign n2 = ~ a;" in text
    assert "assign s = (a & b) > 8'h40;" in text
    assert "wire [7:0] n1, n2;" in text


def test_blocks_that_are_alike_are_one() -> None:
    """Under the same conditions; not where a condition has room for one statement."""
    block = "  always @(posedge clk) begin\n    {0} <= {0};\n    if (go) begin\n      {0} <= in{0};\n    end\n  end\n"
    one = "  always @(posedge clk) begin\n    if (go)\n      {0} <= in{0};\n  end\n"
    text = "module m(clk, go);\n  input clk;\n  input go;\n" + "".join(
        form.format(name) for form in (block, one) for name in ("p", "q")
    )
    short = readable(f"{text}endmodule\n")
    assert "    if (go) begin\n      p <= inp;\n      q <= inq;\n    end\n" in short
    assert "p <= p;" not in short
    assert short.count("always") == 3


def test_choices_and_connections_share_lines() -> None:
    module = dedent("""\
        module m(clk, a);
          input clk;
          input [1:0] a;
          reg y;
          part one (
            .clk(clk),
            .x(a[0]),
            .y(a[1])
          );
          always @(posedge clk) begin
            casez (a)
              2'h0:
                  y <= 1'h0;
              2'h1:
                  y <= 1'h0;
              2'h2:
                  y <= 1'h1;
              default:
                  y <= 1'h1;
            endcase
          end
        endmodule
        """)
    text = readable(module)
    assert "    .clk(clk), .x(a[0]), .y(a[1])\n" in text
    assert "      2'h0, 2'h1: y <= 1'h0;\n      default: y <= 1'h1;\n" in text
