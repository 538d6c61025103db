"""The verb of values: a frame through the emulated machine, compared with the reference and with onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from .cli_compile import compiled_from
from .cli_console import emit, staged, table
from .cli_options import COMMON, DATA, MACHINE, Common, Data, Machine

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .compiled import Compiled

__all__ = ["read_feeds", "run"]


def run(
    source: Annotated[str, Parameter(help="Compiled folder, or a model as `compile` takes it.")],
    *,
    input: Annotated[
        tuple[str, ...],
        Parameter(
            help="A `.npy` for the only input, `NAME=FILE.npy` for one of several, or a `.npz`.  [default: seeded noise]",
            negative="",
            show_default=False,
            consume_multiple=False,
        ),
    ] = (),
    compare: Annotated[
        bool,
        Parameter(
            help="Compare with the integer reference and with onnxruntime on the model.",
            negative="",
            show_default=False,
        ),
    ] = False,
    machine: Machine = MACHINE,
    data: Data = DATA,
    output: Annotated[
        Path | None, Parameter(name=("--output", "-o"), help="Write the outputs to a `.npz`.")
    ] = None,
    common: Common = COMMON,
) -> None:
    """Values: execute the program on the emulated machine, bit for bit."""
    with staged(common) as stage:
        compiled = compiled_from(source, machine, data, common, stage)
        feeds = read_feeds(input, compiled, common.seed)
        stage("execute")
        outputs = compiled.run(feeds)
        exact, judged = None, {}
        if compare:
            stage("integer reference")
            exact = compiled.verify_values(feeds, every=True)
            stage("onnxruntime")
            judged = {
                name: _judge(outputs[name], want) for name, want in _onnxruntime(compiled, feeds).items()
            }
    if output is not None:
        _write(output, outputs)

    value: dict[str, Any] = {
        "schema": "tilewright.run/1",
        "model": compiled.model.name,
        "arch": compiled.arch.name,
        "outputs": {name: {"shape": list(v.shape), "dtype": str(v.dtype)} for name, v in outputs.items()},
        "exact": None
        if exact is None
        else {"bytes_compared": exact.bytes_compared, "bytes_differing": exact.bytes_differing},
        "onnxruntime": judged,
        "files": [str(output)] if output else [],
    }

    quantised = compiled.model.calibration == "model"

    def text() -> str:
        rows = [(n, "x".join(map(str, v.shape)), str(v.dtype), _glance(v)) for n, v in outputs.items()]
        lines = [f"{compiled.model.name} on {compiled.arch.name}, emulated", table(rows)]
        if exact is not None:
            lines.append(
                f"  integer reference: {exact.bytes_differing:,} of {exact.bytes_compared:,} bytes differ, every layer's compared"
            )
        for name, j in judged.items():
            # Behind a quantised network's own int8 few values may differ; behind a float one's, all do.
            few = f"{j['differing']:,} of {j['values']:,} values differ, " if quantised else ""
            lines.append(
                f"  onnxruntime, {name}: signal to noise {j['sqnr_db']:.1f} dB, largest difference {j['max_abs']:.4g}, "
                f"{few}largest at the same place: {'yes' if j['same_argmax'] else 'no'}"
            )
        if judged and not quantised:
            lines.append("  (onnxruntime runs the float network: what differs is what quantisation costs)")
        if compare and compiled.model.calibration == "synthetic":
            lines.append("  (quantised on synthetic data: the values say nothing about accuracy)")
        if output is not None:
            lines.append(f"written: {output}")
        return "\n".join(lines)

    emit(common, value, text)


def read_feeds(words: tuple[str, ...], compiled: Compiled, seed: int) -> dict[str, NDArray[Any]]:
    """Inputs named on the command line; seeded noise where none is.

    Raises
    ------
    ModelError
        A file that cannot be read, an input that is missing, unknown, or of another shape.
    """
    from .ir.errors import ModelError

    if not words:
        return compiled.noise(seed)
    ports = {p.name: p for p in compiled.model.inputs}
    feeds: dict[str, NDArray[Any]] = {}
    for word in words:
        name, _, file = word.rpartition("=")
        if not name and word.endswith(".npz"):
            feeds.update(_read_array(file, many=True))
            continue
        if not name and len(ports) > 1:
            raise ModelError(
                f"--input {word}: the network has inputs {', '.join(ports)}; say which, as {next(iter(ports))}={word}"
            )
        feeds[name or next(iter(ports))] = _read_array(file, many=False)[""]
    for name, value in feeds.items():
        if name not in ports:
            raise ModelError(f"--input: no input {name!r}; the network has {', '.join(ports)}")
        want = compiled.shape_of(ports[name])
        if value.shape != want:
            raise ModelError(
                f"input {name}: the file has shape {list(value.shape)}, the network takes {list(want)}"
            )
    missing = ports.keys() - feeds.keys()
    if missing:
        raise ModelError(
            f"no value for input {', '.join(sorted(missing))}; give it with --input NAME=FILE.npy"
        )
    return feeds


def _read_array(file: str, *, many: bool) -> dict[str, NDArray[Any]]:
    import numpy as np

    from .ir.errors import ModelError

    try:
        content = np.load(file, allow_pickle=False)
        if many:
            return {name: content[name] for name in content.files}
        if isinstance(content, np.ndarray):
            return {"": content}
    except (OSError, ValueError, EOFError) as error:
        raise ModelError(f"{file}: cannot be read as an array: {error}; save it with numpy.save") from None
    raise ModelError(
        f"{file}: holds several arrays; give it without a name, and its own names are the inputs"
    )


def _onnxruntime(compiled: Compiled, feeds: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """The original model's outputs."""
    import numpy as np

    original = compiled.original()
    outputs = [original.float_run(frame) for frame in compiled.frames_of(feeds)]
    return {name: np.concatenate([out[name] for out in outputs]) for name in outputs[0]}


def _judge(got: NDArray[Any], want: NDArray[Any]) -> dict[str, Any]:
    import numpy as np

    a, b = np.asarray(got, np.float64), np.asarray(want, np.float64)
    noise, signal = float(np.sum((a - b) ** 2)), float(np.sum(b**2))
    return {
        "values": int(a.size),
        "differing": int(np.count_nonzero(a != b)),
        "max_abs": float(np.max(np.abs(a - b), initial=0.0)),
        # 200 dB stands for "no noise at all": JSON has no infinity.
        "sqnr_db": min(200.0, 10 * float(np.log10(signal / noise))) if noise and signal else 200.0,
        # Several values may be the largest, as where a sigmoid is 1: one place in common is enough.
        "same_argmax": bool(a.size and (a.flat[b.argmax()] == a.max() or b.flat[a.argmax()] == b.max())),
    }


def _glance(value: NDArray[Any]) -> str:
    """Range, and for a vector of scores its largest entries."""
    import numpy as np

    if not value.size:
        return "empty"
    text = f"{np.min(value):.4g} .. {np.max(value):.4g}"
    if 1 < value.size == max(value.shape):
        flat = value.reshape(-1)
        best = np.argsort(-flat.astype(np.float64), kind="stable")[:3]
        text += ", largest " + ", ".join(f"[{i}] {flat[i]:.4g}" for i in best)
    return text


def _write(path: Path, outputs: dict[str, NDArray[Any]]) -> None:
    import io

    import numpy as np

    from .folder import write_whole

    buffer = io.BytesIO()
    np.savez(buffer, **outputs)  # type: ignore[arg-type]
    write_whole(path, buffer.getvalue())
