"""The command line: verbs, exit codes, and how an error looks.

Exit codes: 0; 1 where `verify` found a difference; 2 where the user can mend it (`TilewrightError`, a mistyped
option); 70 where only we can; 130 after Ctrl-C. Standard output holds the answer and nothing else; errors and progress go to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError, Group

from . import __version__
from .ir.errors import TilewrightError

__all__ = ["app", "main"]

_WORK = Group("The main job", sort_key=1)
_LOOK = Group("Looking around", sort_key=2)

app = App(
    name="tilewright",
    version=__version__,
    help=(
        "ONNX in; an int8 DPU program, its cycles, DRAM traffic and energy, and a roofline report out.\n\n"
        "MODEL is an ONNX file, `zoo:NAME` (a network built in code), or a `.npz` that `quantize` wrote."
    ),
    help_epilogue=(
        "Examples:\n\n"
        "  tilewright demo\n"
        "  tilewright check model.onnx\n"
        "  tilewright compile model.onnx --calibration photos/ --arch b1024 -o out\n"
        "  tilewright simulate out --dram fixed:16"
    ),
    help_format="plaintext",
    suppress_keyboard_interrupt=False,  # `main` says what Ctrl-C left behind
)

_VERBS = (
    (
        "demo",
        "cli_demo",
        "MobileNetV2 through the whole tool: one screen, no file and no network needed.",
        "  tilewright demo\n  tilewright demo --board zcu102 --set clock_mhz=250 --json",
    ),
    (
        "check",
        "cli_frontend",
        "Which operators run on the DPU, which on the host, and why; before any work.",
        "  tilewright check model.onnx\n  tilewright check model.onnx --input-shape 1x3x224x224 --json",
    ),
    (
        "quantize",
        "cli_frontend",
        "Make the int8 network once, with the signal to noise ratio of each layer.",
        "  tilewright quantize model.onnx --calibration photos/ -o model.npz\n"
        "  tilewright quantize model.onnx --calibration x.npy --ranges percentile --equalise",
    ),
    (
        "compile",
        "cli_compile",
        "Quantise, schedule, simulate and report.",
        "  tilewright compile model.onnx --calibration photos/ -o out\n"
        "  tilewright compile zoo:unet --synthetic-calibration --set maps.kib=768\n"
        "  tilewright compile model.npz --dram banked:DDR4-2400x64 --verify --json",
    ),
    (
        "simulate",
        "cli_compile",
        "Simulate a compiled folder again, on another memory or machine.",
        "  tilewright simulate out --dram fixed:16,40\n  tilewright simulate out --arch b1024 -o out-b1024",
    ),
    (
        "run",
        "cli_run",
        "Values: execute the program on the emulated machine, bit for bit.",
        "  tilewright run out --input image.npy --compare\n"
        "  tilewright run out --input left=a.npy --input right=b.npy -o outputs.npz",
    ),
    (
        "report",
        "cli_compile",
        "Write the report of a compiled folder again.",
        "  tilewright report out --open",
    ),
    (
        "explain",
        "cli_explain",
        "Why this schedule: groups, runners-up, what binds, and what more of each resource gives.",
        "  tilewright explain out\n  tilewright explain out block3.depthwise\n  tilewright explain out stem --no-relax --json",
    ),
    (
        "verify",
        "cli_rtl",
        "Run a compiled network on the Verilog: every byte and cycle compared with emulator and simulator.",
        "  tilewright verify out\n"
        "  tilewright verify out --dram fixed:16,40 --json\n"
        "  tilewright verify out --layers 'block1*' --wave block1.vcd --wave-cycles 0:5000",
    ),
    (
        "rtl",
        "cli_rtl",
        "Write the core's Verilog.",
        "  tilewright rtl --arch b1024 --board zcu104 -o out\n  tilewright rtl --board pynq-z2 --set dwc.taps=9",
    ),
    (
        "explore",
        "cli_explore",
        "Design-space exploration: which DPU for these networks on this board?",
        "  tilewright explore zoo:mobilenet_v2 --space kv260\n"
        "  tilewright explore a.onnx b.onnx --space S.toml --objectives latency,energy,dsp --jobs 8 -o study\n"
        "  tilewright explore zoo:resnet18 --space ultra96v2 --then build --pick fps_per_dsp",
    ),
    (
        "compare",
        "cli_explore",
        "Compare two studies of explore: whose front is ahead, where, by how much.",
        "  tilewright compare study-a study-b",
    ),
    (
        "build",
        "cli_build",
        "Write a board package: Verilog, Vivado scripts, registers, drivers.",
        "  tilewright build --board pynq-z2 -o package\n"
        "  tilewright build --board zcu104 --arch b1024 --set clock_mhz=250\n"
        "  tilewright build --board kv260 --run",
    ),
)
for _verb, _module, _text, _examples in _VERBS:
    app.command(
        f"tilewright.{_module}:{_verb}",
        name=_verb,
        help=_text,
        help_epilogue=f"Examples:\n\n{_examples}",
        group=_WORK,
    )
app.command(
    "tilewright.cli_look:doctor",
    name="doctor",
    help="What is installed and usable.",
    help_epilogue="",
    group=_LOOK,
)
app.command("tilewright.cli_look:arch", name="arch", help="Machines: list, show, schema.", group=_LOOK)
app.command("tilewright.cli_look:board", name="board", help="Boards: list, show.", group=_LOOK)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _complain(_usage(error), 2)
    except TilewrightError as error:
        return _complain(str(error), error.exit_code)
    except KeyboardInterrupt:
        return _complain("interrupted; nothing half-written is left", 130)
    except BrokenPipeError:  # the reader of our output, as `head`, has seen enough
        sys.stderr.close()
        return 0
    except Exception as error:
        return _bug(error, "--traceback" in words)
    return 0


def _complain(text: str, code: int) -> int:
    """One paragraph on standard error."""
    print("tilewright: " + " ".join(text.split()), file=sys.stderr)
    return code


def _usage(error: CycloptsError) -> str:
    """What cyclopts says about a mistyped command line, and where the help is."""
    chain = " ".join(["tilewright", *(error.command_chain or ())])
    text = str(error).strip()
    return f"{text}{'' if text.endswith(('.', '?')) else '.'} `{chain} --help` shows what it takes."


def _bug(error: Exception, show: bool) -> int:
    """An error that only we can mend: where the traceback is."""
    import tempfile
    import traceback

    text = "".join(traceback.format_exception(error))
    what = f"internal error: {type(error).__name__}: {error}. This is a bug in Tilewright; please report it"
    if show:
        print(text, file=sys.stderr)
        return _complain(what + ".", 70)
    with tempfile.NamedTemporaryFile(
        "w", prefix="tilewright-", suffix=".txt", delete=False, encoding="utf-8"
    ) as file:
        file.write(text)
    return _complain(f"{what} with {file.name}, which holds the traceback.", 70)
