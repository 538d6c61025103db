"""The interlock against the rules of docs/machine.md, cycle by cycle, with engines of random length."""

from __future__ import annotations

import random

import pytest
from amaranth.sim import Simulator
from control_bench import ARCHES, Step, random_program, rule, run_control
from tilewright.ir.arch import Arch
from tilewright.ir.isa import ENGINE_OF, Engine, Opcode, encode, instruction
from tilewright.rtl.interlock import Interlock, most_unfinished


@pytest.mark.parametrize("name", ARCHES)
@pytest.mark.parametrize("seed", range(4))
def test_every_instruction_starts_in_the_cycle_that_the_rules_say(name: str, seed: int) -> None:
    arch = ARCHES[name]
    program = random_program(arch, seed, 70)
    rng = random.Random(seed)
    ready, t = [], 0
    for _ in program:
        t += rng.choice((0, 0, 0, 0, 20)) if seed % 2 else rng.choice((0, 1, 2, 3))
        ready.append(t)
    expected = rule(arch, program, ready)
    seen = run_control(arch, program, ready, max(x[2] for x in expected) + 4, words=99)
    assert seen.times == expected
    assert seen.words_at_start == [s.word for s in program]
    assert seen.fault == (0, 0)
    assert seen.tokens == [sum(s.engine == e for s in program) for e in Engine]
    order = sorted(range(len(program)), key=lambda i: (expected[i][2], program[i].engine or 0))
    assert seen.oldest_at_done == order


def test_tokens_are_counted_modulo_2_to_the_16() -> None:
    """Three waits around the wrap: met, met exactly, not met yet."""
    arch = Arch()
    lock = Interlock(arch)
    starts: dict[int, bool] = {}

    async def bench(ctx) -> None:  # type: ignore[no-untyped-def]
        ctx.set(lock.tokens_save, 65_530)
        for wait, given in ((65_530, 0), (65_535, 4), (2, 7), (3, 9)):
            word = encode(instruction(Opcode.CONV, wait_save=wait)[None])
            ctx.set(lock.word, int.from_bytes(word, "little"))
            ctx.set(lock.push, 1 << Engine.CONV)
            await ctx.tick()
            ctx.set(lock.push, 0)
            while (ctx.get(lock.tokens_save) - 65_530) % 65_536 < given:
                ctx.set(lock.save.done, 1)
                await ctx.tick()
            ctx.set(lock.save.done, 0)
            seen = False
            for _ in range(6):
                seen |= bool(ctx.get(lock.started))
                ctx.set(lock.conv.last, seen)
                await ctx.tick()
            starts[wait] = seen
            ctx.set(lock.conv.last, 0)
            if not seen:
                ctx.set(lock.save.done, 1)
                await ctx.tick()
                ctx.set(lock.save.done, 0)
                for _ in range(4):
                    starts[-wait] = starts.get(-wait, False) or bool(ctx.get(lock.started))
                    await ctx.tick()
                ctx.set(lock.conv.last, 1)
                await ctx.tick()
                ctx.set(lock.conv.last, 0)

    sim = Simulator(lock)
    sim.add_clock(1e-6)
    sim.add_testbench(bench)
    sim.run()
    assert starts == {65_530: True, 65_535: False, -65_535: True, 2: False, -2: True, 3: True}


@pytest.mark.parametrize("engine", Engine)
def test_the_ledger_holds_whatever_can_be_unfinished(engine: Engine) -> None:
    """The shortest instructions one after the other, as many as can be in flight, and a full queue behind them."""
    arch = Arch().override({"queues.depth": 4, "dma.outstanding": 4})
    opcode = {e: o for o, e in ENGINE_OF.items()}[engine]
    word = int.from_bytes(encode(instruction(opcode)[None]), "little")
    flight = most_unfinished(arch, engine) - arch.queues.depth - 2
    program = [
        Step(
            {f"{p}_{n}": 0 for p in "abd" for n in ("group", "span")} | {"func": 1, "last": 1},
            opcode,
            3,
            3 * flight,
            word,
        )
    ] * 60
    ready = [0] * len(program)
    expected = rule(arch, program, ready)
    seen = run_control(arch, program, ready, max(x[2] for x in expected) + 4, words=99)
    assert seen.oldest_at_done == list(range(60))
