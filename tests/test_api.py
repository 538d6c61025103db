"""The Python face: what people of the field would type."""

from __future__ import annotations

import json
from dataclasses import make_dataclass
from pathlib import Path

import numpy as np
import pytest
import tilewright as tw
from tilewright.archive import pack, unpack
from tilewright.folder import written_whole
from tilewright.ir.errors import ArchError, ModelError, ReportError
from tilewright.ir.graph import Quant, Tensor
from tilewright.scheduler import Options


@pytest.fixture(scope="module")
def compiled() -> tw.Compiled:
    return tw.compile("zoo:tiny", "b512", synthetic_calibration=True)


def test_claims_keep_their_order(compiled: tw.Compiled) -> None:
    """Bound, estimate, simulated; the prediction is the estimate."""
    total = compiled.simulate().total
    assert total.bounds.bound_cycles <= total.estimate_cycles <= total.cycles
    prediction = tw.predict(compiled)
    assert (prediction.estimate_cycles, prediction.claim) == (total.estimate_cycles, "estimate")
    told = json.loads(prediction.to_json())
    assert (told["schema"], told["fps"]) == ("tilewright.prediction/1", prediction.fps)


def test_every_byte_of_every_layer_equals_the_reference() -> None:
    """With every map saved, the emulator is compared on all of them."""
    whole = tw.compile("zoo:tiny", "b512", synthetic_calibration=True, options=Options(save_all=True))
    exact = whole.verify_values(seed=5)
    made = sum(t.bytes for p in whole.plans for n, t in p.graph.tensors.items() if n not in p.graph.inputs)
    assert exact.bytes_differing == 0
    assert exact.bytes_compared == made


def test_a_wrong_byte_is_found(compiled: tw.Compiled, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison can fail."""
    from tilewright.hwsim import emulate

    right = emulate.emulate

    def spoiled(*args: object, **options: object) -> emulate.Emulation:
        done = right(*args, **options)  # type: ignore[arg-type]
        place = compiled.plans[0].places[compiled.plans[0].graph.outputs[0]]
        done.maps[place.offset] ^= 1
        return done

    monkeypatch.setattr(emulate, "emulate", spoiled)
    assert compiled.verify_values().bytes_differing >= 1


def test_a_folder_gives_back_what_was_saved(compiled: tw.Compiled, tmp_path: Path) -> None:
    """Same programs, same values, same cycles; saved again, same bytes."""
    compiled.save(tmp_path)
    again = tw.Compiled.load(tmp_path)
    feeds = compiled.noise(1)
    for name, value in compiled.run(feeds).items():
        assert np.array_equal(value, again.run(feeds)[name])
    assert [p.program.words for p in again.plans] == [p.program.words for p in compiled.plans]
    assert again.simulate().total.cycles == compiled.simulate().total.cycles
    (tmp_path / "twice").mkdir()
    names = again.save(tmp_path / "twice")
    assert all((tmp_path / n).read_bytes() == (tmp_path / "twice" / n).read_bytes() for n in names)


def test_compiling_twice_gives_the_same_bytes(compiled: tw.Compiled) -> None:
    again = tw.compile("zoo:tiny", "b512", synthetic_calibration=True)
    assert [p.program.save() for p in again.plans] == [p.program.save() for p in compiled.plans]


def test_a_faster_memory_is_never_slower(compiled: tw.Compiled) -> None:
    cycles = [compiled.simulate(dram=f"fixed:{rate}").total.cycles for rate in (1, 2, 4, 8, 16)]
    assert cycles == sorted(cycles, reverse=True)


def test_several_cores_share_the_memory(compiled: tw.Compiled, tmp_path: Path) -> None:
    """The programs stay, one core's numbers stay, and beside them stands how all fare together."""
    alone, two = compiled.simulate(), compiled.simulate(cores=2, frames=2, dram="fixed:4,40")
    assert alone.shared is None
    assert alone.summary()["cores"] is None
    slow = compiled.simulate(dram="fixed:4,40").total
    assert two.total.cycles == slow.cycles
    shared = two.shared
    assert shared is not None
    assert (shared.cores, shared.frames, shared.alone_cycles) == (2, 2, slow.cycles)
    assert slow.fps < shared.fps < 2 * slow.fps
    assert two.summary()["cores"]["slowdown"] == shared.slowdown > 1
    assert "2 cores: " in two._repr_html_()
    machine = compiled.with_cores(2)
    assert (machine.arch.cores, machine.plans[0].program.design) == (2, machine.arch.design_hash)
    machine.save(tmp_path)
    again = tw.Compiled.load(tmp_path).simulate(frames=2, stagger=True)
    assert again.shared is not None
    assert again.shared.starts[1] > 0
    told = tw.predict(machine)
    assert (told.cores, told.cores_fps) == (2, 2 * told.fps)
    assert tw.predict(machine.with_dram("fixed:0.5,40")).cores_fps < 2 * told.fps
    with pytest.raises(tw.TilewrightError, match="cores"):
        compiled.simulate(cores=9)
    with pytest.raises(tw.TilewrightError, match=r"frames is 0: want 1\.\.64"):
        compiled.simulate(cores=2, frames=0)


def test_the_twin_has_no_depthwise_engine_and_the_same_values(compiled: tw.Compiled) -> None:
    twin = compiled.without_dwc()
    assert (twin.arch.name, twin.arch.has_dwc) == ("b512-nodw", False)
    feeds = compiled.noise(2)
    for name, value in compiled.run(feeds).items():
        assert np.array_equal(value, twin.run(feeds)[name])
    assert twin.without_dwc() is twin


def test_a_report_is_a_folder(compiled: tw.Compiled, tmp_path: Path) -> None:
    names = tw.report(compiled.simulate(), tmp_path / "report")
    assert "report.html" in names
    assert all((tmp_path / "report" / n).is_file() for n in names)


def test_main_values_have_a_table_for_notebooks(compiled: tw.Compiled) -> None:
    for value in (compiled, compiled.simulate(), tw.predict(compiled)):
        assert "<" in value._repr_html_()


def test_boards_and_machines_are_found_by_name() -> None:
    assert tw.Board("kv260").name == "kv260"
    with pytest.raises(ArchError, match="did you mean zcu104"):
        tw.Board("zcu105")
    assert tw.Arch.preset("b1024").macs_per_cycle == 512


def test_a_float_network_without_data_is_told_both_ways_out() -> None:
    with pytest.raises(ModelError, match="synthetic"):
        tw.compile("zoo:tiny", "b512")


def test_a_rounding_mode_the_machine_lacks_is_refused() -> None:
    with pytest.raises(ModelError, match="b512\\+ has shift"):
        tw.compile("zoo:tiny", "b512", synthetic_calibration=True, set={"rounding": ["shift"]}, mode="f32")


def test_the_original_must_still_be_what_was_compiled(tmp_path: Path) -> None:
    """A changed or vanished file is noticed before anything is compared with it."""
    import onnx

    file = tmp_path / "net.onnx"
    onnx.save(tw.zoo.build("tiny"), file)
    made = tw.compile(file, "b512", synthetic_calibration=True)
    assert made.original().name == "net"
    onnx.save(tw.zoo.build("tiny", seed=1), file)
    with pytest.raises(ModelError, match="has changed"):
        made.original()
    file.unlink()
    with pytest.raises(ModelError, match="cannot be read"):
        made.original()


# -- archive and folder ------------------------------------------------------------------------------------------------
def test_an_archive_gives_back_what_was_packed() -> None:
    value = {"a": (1, 2.5, "x", None, True), "b": [b"bytes", Tensor("t", (1, 2, 3), Quant(0.5, -3))]}
    assert unpack(pack(value), [Tensor, Quant], where="here") == value
    array = np.arange(6, dtype=np.int8).reshape(2, 3)
    assert np.array_equal(unpack(pack([array]), [], where="here")[0], array)


def test_an_archive_builds_no_class_that_was_not_named() -> None:
    with pytest.raises(ReportError, match="class Tensor does not belong here"):
        unpack(pack(Tensor("t", (1, 2, 3), Quant(0.5))), [Quant], where="here")


def test_an_archive_checks_what_a_file_says() -> None:
    """Constructors run on the way in: a scale of zero is no quantisation."""
    impostor = make_dataclass("Quant", [("scale", float), ("zero_point", int)])
    with pytest.raises(ModelError, match="scale 0"):
        unpack(pack(impostor(0.0, 0)), [Quant], where="here")


@pytest.mark.parametrize("cut", [0, 10, 100, -30])
def test_a_cut_archive_is_refused(cut: int) -> None:
    with pytest.raises(ReportError, match="cut off, damaged"):
        unpack(pack([Quant(0.5)])[:cut], [Quant], where="here")


def test_a_folder_that_fails_half_way_leaves_the_old_one(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with written_whole(target) as draft:
        (draft / "summary.json").write_text("old")

    def fail() -> None:
        with written_whole(target) as draft:
            (draft / "summary.json").write_text("new")
            raise RuntimeError("half way")

    with pytest.raises(RuntimeError, match="half way"):
        fail()
    assert (target / "summary.json").read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
