"""Batches: frames below each other in every map, weights loaded once for all of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tilewright as tw
from running import compare
from tilewright.cli import main
from tilewright.hwsim import bounds, simulate
from tilewright.hwsim.dram import parse
from tilewright.ir.arch import Arch
from tilewright.ir.errors import ModelError
from tilewright.ir.graph import Conv, Graph, Pool, Quant, Tensor, Window
from tilewright.ir.graph_text import parse_graph, print_graph
from tilewright.ir.requant import encode_scale
from tilewright.ir.tile import TileProgram
from tilewright.scheduler import Options, lower, schedule

FRAMES = 3


@pytest.fixture(scope="module")
def single() -> tw.Compiled:
    return tw.compile("zoo:tiny", "b512", synthetic_calibration=True)


@pytest.fixture(scope="module")
def batch(single: tw.Compiled) -> tw.Compiled:
    return single.on(single.arch, batch=FRAMES)


def heavy(channels: int = 256, size: int = 7) -> Graph:
    """A 1 x 1 convolution with more bytes of weights than of maps, a 3 x 3 one, and a global pool."""
    random = np.random.default_rng(1)
    quant = Quant(0.05)

    def conv(name: str, source: str, kernel: int) -> Conv:
        weight = random.integers(-128, 128, (channels, kernel, kernel, channels), np.int64).astype(np.int8)
        scale = np.full(channels, encode_scale(1e-4, "f32"), np.uint32)
        window = Window((kernel, kernel), pad=(kernel // 2,) * 4)
        return Conv(name, (source,), name, weight, np.zeros(channels, np.int32), scale, window)

    words = (0, *(int(encode_scale(1 / n, "f32")) for n in range(1, size * size + 1)))
    ops = (
        conv("one", "x", 1),
        conv("three", "one", 3),
        Pool("mean", ("three",), "mean", "avg", Window((size, size)), words),
    )
    shape = (size, size, channels)
    tensors = {n: Tensor(n, shape, quant) for n in ("x", "one", "three")}
    return Graph("heavy", tensors | {"mean": Tensor("mean", (1, 1, channels), quant)}, ops, ("x",), ("mean",))


def test_each_frame_is_what_it_is_alone(single: tw.Compiled, batch: tw.Compiled) -> None:
    """Frames go in and come out along the first axis; no value depends on the others."""
    feeds = batch.noise(7)
    got = batch.run(feeds)
    alone = [single.run({n: np.split(v, FRAMES)[f] for n, v in feeds.items()}) for f in range(FRAMES)]
    for name, value in got.items():
        np.testing.assert_array_equal(value, np.concatenate([out[name] for out in alone]))


def test_every_byte_of_every_layer_equals_the_reference(batch: tw.Compiled) -> None:
    """The witness saves every map of the batch."""
    exact = batch.verify_values(seed=3, every=True)
    assert exact.bytes_differing == 0
    made = sum(t.bytes for p in batch.plans for n, t in p.graph.tensors.items() if n not in p.graph.inputs)
    assert exact.bytes_compared > made  # every map, and the program's own


def test_weights_come_once_for_all_frames() -> None:
    """Their bytes are those of one frame, and what waited for them is quicker."""
    arch, graph = Arch.preset("b4096"), heavy()
    one, four = (
        simulate(
            schedule(graph.stacked(n), arch, dram_bytes_per_cycle=32).program, arch, "fixed:32,40", graph=graph.stacked(n)
        )
        for n in (1, 4)
    )  # fmt: skip
    assert four.dram_bytes["weights"] == one.dram_bytes["weights"]
    assert four.macs == 4 * one.macs
    assert four.fps > 1.2 * one.fps


def test_no_window_reaches_into_the_next_frame() -> None:
    """Strips of every height, those that end in the middle of a frame among them."""
    arch, graph = Arch.preset("b512"), heavy(24, 5).stacked(4)
    for rows in (1, 2, 3, 4, 7, 20):
        plan = schedule(graph, arch, options=Options(strip_rows=rows))
        found = compare(plan, graph, seed=rows)
        assert found.compared
        assert not found.differing
        assert TileProgram.parse(str(plan.tiling)) == plan.tiling
        assert lower(plan.tiling, graph, arch).program.save() == plan.program.save()


def test_bounds_count_weights_once() -> None:
    """Compulsory bytes of a batch: the frames' maps, and the weights once."""
    arch, memory, graph = Arch.preset("b512"), parse("fixed:16"), heavy(32)
    one, four = (bounds.bounds(graph.stacked(n), arch, memory) for n in (1, 4))
    maps = graph.tensors["x"].bytes + graph.tensors["mean"].bytes
    assert four.compulsory_bytes - one.compulsory_bytes == 3 * maps
    assert four.compute_cycles == pytest.approx(4 * one.compute_cycles, abs=4)


def test_a_folder_keeps_the_batch(batch: tw.Compiled, tmp_path: Path) -> None:
    """Programs, values and what the schedule was asked for."""
    asked = batch.on(batch.arch, options=Options(fuse=2, dram_gbps=4.0))
    asked.save(tmp_path)
    again = tw.Compiled.load(tmp_path)
    assert (again.batch, again.options) == (FRAMES, Options(fuse=2, dram_gbps=4.0))
    assert [p.program.save() for p in again.plans] == [p.program.save() for p in asked.plans]
    feeds = batch.noise(1)
    for name, value in again.run(feeds).items():
        np.testing.assert_array_equal(value, batch.run(feeds)[name])


def test_a_stacked_graph_has_a_frame() -> None:
    """Its frame is the graph that it was made of, to the text."""
    graph = heavy(16)
    stacked = graph.stacked(5)
    assert stacked.tensors["x"].shape == (35, 7, 16)
    assert stacked.frame_shape("x") == (7, 7, 16)
    assert stacked.macs == 5 * graph.macs
    assert print_graph(stacked.frame)[0] == print_graph(graph)[0]
    assert stacked.stacked(2).tensors["x"].shape == (14, 7, 16)
    text, arrays = print_graph(stacked)
    assert print_graph(parse_graph(text, arrays))[0] == text
    assert parse_graph(text, arrays).frames == 5


@pytest.mark.parametrize(
    ("frames", "words"),
    [(0, "a batch of 0 frames"), (-2, "a batch of -2 frames"), (5000, "take at most 2340 frames a batch")],
)
def test_a_batch_that_cannot_be_is_refused(frames: int, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        heavy(16).stacked(frames)


def test_too_few_frames_are_refused(batch: tw.Compiled) -> None:
    feeds = {name: value[:1] for name, value in batch.noise(0).items()}
    with pytest.raises(
        ModelError, match=r"value has shape \[1, 3, 32, 32\], the programs take 3 frames a run"
    ):
        batch.run(feeds)


def test_the_command_line_takes_a_batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The summary says how many frames its numbers are of; another batch is another program."""
    folder = tmp_path / "out"
    words = ["compile", "zoo:tiny", "--arch", "b512", "--synthetic-calibration", "--no-twin", "--no-figures"]
    assert main([*words, "--batch", "4", "--json", "-o", str(folder)]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["frames"] == 4
    assert told["fps"] == pytest.approx(4e3 / told["latency_ms"])
    assert "batch of 4 frames" in (folder / "report.html").read_text(encoding="utf-8")
    assert main(["run", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outputs"]["probabilities"]["shape"] == [4, 10]
    assert main(["simulate", str(folder), "--batch", "2", "--no-twin", "--no-figures", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["frames"] == 2
    assert main([*words, "--batch", "0", "-o", str(tmp_path / "none")]) == 2
    assert "give at least 1" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
