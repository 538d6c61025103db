"""Proofs: order in queues, ownership of ports, and the rules of AXI; and that each proof would see a bug.

Of every claim three things are shown: it holds, in all cycles (pdr) or in the first ones (bmc); its goals can be
reached, so that it is not about nothing; and with a bug in the component it fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from types import ModuleType
from typing import Any

import formal_bus as bus
import formal_control as control
import pytest
from formal import Bench, Engine, goals, missing_tools, solve, variant
from tilewright.rtl import bursts, fetch, interlock, queues, registers, short_queue, write_buffer

pytestmark = pytest.mark.skipif(bool(missing_tools()), reason=missing_tools() or "tools")


@dataclass(frozen=True)
class Claim:
    """What is shown of one component.

    Parameters
    ----------
    bench : callable
        Puts the component of a module, and all that stands around it, on a bench.
    module : ModuleType
    bugs : dict
        What a bug does, and the line that has it instead of the right one.
    depth : int
        Cycles in which goals are reached and bugs are seen, at most; of a bounded proof as well.
    scaled : pairs of str
        Lines written otherwise to make widths small.
    """

    bench: Callable[[Bench, Any], None]
    module: ModuleType
    bugs: dict[str, tuple[str, str]]
    engine: Engine = "pdr"
    depth: int = 20
    scaled: tuple[tuple[str, str], ...] = ()
    names: dict[str, Any] = field(default_factory=dict)

    def on(self, *changes: tuple[str, str]) -> Callable[[Bench], None]:
        """The bench of the component, with some lines changed."""
        if changes or self.scaled or self.names:
            return partial(self._build, variant(self.module, *self.scaled, *changes, **self.names))
        return partial(self._build, self.module)

    def _build(self, module: Any, bench: Bench) -> None:
        self.bench(bench, module)


CLAIMS = {
    "short queue": Claim(
        control.short_queue,
        short_queue,
        {
            "an entry is lost when one is pushed and popped at once": (
                "first.eq(first + self.pop)",
                "first.eq(first + (self.pop & ~self.push))",
            ),
            "the level counts pushes only": ("level + self.push - self.pop", "level + self.push"),
        },
    ),
    "instruction queue": Claim(
        control.instruction_queue,
        queues,
        {
            "a word passes others that wait": ("turn & ~any_behind & self.push", "turn & self.push"),
            "full comes one too late": ("full.eq(count_next == self.depth)", "full.eq(count == self.depth)"),
        },
    ),
    "ledger": Claim(
        control.ledger,
        queues,
        {
            "the second oldest is read late": ("read.addr.eq(after)", "read.addr.eq(at)"),
            "what is retired is counted still": (
                "count.eq(count + self.write - self.retire)",
                "count.eq(count + self.write)",
            ),
        },
    ),
    "fetch": Claim(
        control.fetch,
        fetch,
        {
            "an address does not wait": ("& (~ar.valid | ar.ready) &", "&"),
            "a group is asked for with room for a part of it": ("(room >= _GROUP)", "(room != 0)"),
            "a word is lost that was not taken": (
                "fresh.eq(~ahead | ~self.valid | self.take)",
                "fresh.eq(1)",
            ),
        },
        engine="bmc",
        depth=13,
        scaled=control.FOUR_WORDS,
    ),
    "interlock": Claim(
        control.interlock,
        interlock,
        {
            "a start a cycle ago is forgotten": ("& ~recent & ~first", "& ~first"),
            "two start at once": ("& ~recent & ~first", "& ~recent"),
            "a start comes a token early": (
                '~(tokens[o] - header[f"wait_{o.name.lower()}"])[15]',
                '~(tokens[o] + 1 - header[f"wait_{o.name.lower()}"])[15]',
            ),
            "a write port is given back by the first of two": (
                "single.eq(holders_next == 1)",
                "single.eq(1)",
            ),
        },
        engine="bmc",
        depth=9,
    ),
    "burst walker": Claim(
        bus.burst_walker,
        bursts,
        {
            "a burst does not wait": ("with m.Elif(out.ready):", "with m.Else():"),
            "a burst goes on behind the cut": ("arch.burst_bytes - place)", "arch.burst_bytes)"),
            "a burst comes unasked": ("measure & self.permit & ~out.valid", "measure & ~out.valid"),
        },
        engine="bmc",
        depth=12,
        scaled=bus.SCALED_WALK,
    ),
    "write buffer": Claim(
        bus.write_buffer,
        write_buffer,
        {
            "an address does not wait": ("place_free.eq(~aw.valid | aw.ready)", "place_free.eq(1)"),
            "a beat does not wait": ("with m.If(w.ready | ~valid):", "with m.If(w.ready | ~spare_valid):"),
            "wlast comes a beat late": (
                "next_beats.eq(last_byte[offset_bits:])",
                "next_beats.eq(last_byte[offset_bits:] + 1)",
            ),
            "the spare beat is lost": ("valid.eq(spare_valid | shown)", "valid.eq(shown)"),
        },
        engine="bmc",
        depth=14,
    ),
    "register file": Claim(
        bus.registers,
        registers,
        {
            "an answer does not wait": ("with m.If(bus.b.valid & bus.b.ready):", "with m.If(bus.b.valid):"),
            "the strobes are ignored": ("Cat(s.replicate(8) for s in strobes)", "strobes[0].replicate(32)"),
            "an address is taken before the last was answered": (
                "~stages.any() & ~bus.r.valid",
                "~stages[0]",
            ),
        },
    ),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_it_holds(name: str) -> None:
    """Every check of the claim, from any state before the reset on."""
    claim = CLAIMS[name]
    assert solve(claim.on(), claim.engine, claim.depth).holds


@pytest.mark.parametrize("name", CLAIMS)
def test_its_goals_are_reached(name: str) -> None:
    """What the claim is about does happen."""
    claim = CLAIMS[name]
    wanted = goals(claim.on())
    assert wanted
    assert [g for g in wanted if solve(claim.on(), "bmc", claim.depth, goal=g).holds] == []


@pytest.mark.parametrize(("name", "bug"), [(n, bug) for n, claim in CLAIMS.items() for bug in claim.bugs])
def test_a_bug_is_seen(name: str, bug: str) -> None:
    """With one line of the component wrong, the claim fails."""
    claim = CLAIMS[name]
    assert not solve(claim.on(claim.bugs[bug]), "bmc", claim.depth).holds


def test_another_solver_sees_the_same() -> None:
    """smtbmc with yices finds the bug of the short queue in the same cycle, and nothing without it."""
    claim = CLAIMS["short queue"]
    right, wrong = claim.on(), claim.on(next(iter(claim.bugs.values())))
    found = solve(wrong, "bmc", 5)
    assert found.cycle == solve(wrong, "smt", 5).cycle
    assert solve(right, "smt", found.cycle).holds
