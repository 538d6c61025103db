"""The tiling IR: what is computed together, in which order and tile, and where every map lives on chip.

A `TileProgram` is a sequence of groups. A group is a loop nest over strips of rows (and, where a map is too wide or
its weights too many, over column tiles or output-channel chunks) around statements, one for each load, layer and
save. Each statement that makes a map says in which ring of rows it lives. The text is the value: `parse` reads back
what ``str`` printed, comments (``#``) aside, so a schedule can be edited by hand and compiled again.

    group 1 "features.1.conv.0 .. features.1.conv.1" {
      for y in 0:112 step 8 {
        load  %c0: int8[112x112x32] -> maps.0[0] 20 rows x 112 x 2 blocks
        dwc   %d1: int8[112x112x32] = "features.1.conv.0"(%c0) -> maps.1[0] 16 rows x 112 x 2 blocks, weights resident
        conv  %c2: int8[112x112x16] = "features.1.conv.1"(%d1) -> maps.2[0] 16 rows x 112 x 1 block, stage 1, weights resident
        save  %c2
      }
    }
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from .errors import ProgramError
from .graph import Shape

__all__ = ["Group", "Ring", "Statement", "TileProgram"]


@dataclass(frozen=True, slots=True)
class Ring:
    """A map's place on chip: a ring of rows in one map group.

    Row y lies in ring row ``y % rows``; channel block b starts ``b * rows * pitch`` words further.

    Parameters
    ----------
    group : int
        Map group.
    base : int
        First word.
    rows : int
        Rows of the ring; the map's height where it is resident.
    width, pitch : int
        Columns stored, and words from a row to the next.
    blocks : int
        Channel blocks (or kernel columns folded into words, where `fold`). Fewer than the map has where it is made and
        saved chunk by chunk: block b lies at ``b % blocks``.
    fold : bool
        Words hold kernel columns times channels, for the convolution that reads it.
    """

    group: int
    base: int
    rows: int
    width: int
    pitch: int
    blocks: int
    fold: bool = False

    @property
    def plane(self) -> int:
        return self.rows * self.pitch

    @property
    def words(self) -> int:
        """Map words it occupies."""
        return self.blocks * self.plane

    def __str__(self) -> str:
        pitch = f" pitch {self.pitch}" if self.pitch != self.width else ""
        fold = " folded" if self.fold else ""
        noun = "block" if self.blocks == 1 else "blocks"
        return f"maps.{self.group}[{self.base}] {self.rows} rows x {self.width}{pitch} x {self.blocks} {noun}{fold}"


@dataclass(frozen=True, slots=True)
class Statement:
    """One line of a group.

    Parameters
    ----------
    kind : str
        load, conv, dwc, vec, view or save.
    tensor : str
        The map it makes on chip (load, conv, dwc, vec), writes back (save) or renames in DRAM (view).
    shape : (H, W, C)
    layer : str
        Name of the layer; empty for load and save.
    sources : tuple of str
        Maps it reads.
    ring : Ring or None
        Where its map lives; None for save and view.
    stage : int
        Steps it lags behind the strips.
    chunk : int
        Output-channel blocks an instruction computes; 0 for all.
    weights : str
        "resident" for the whole group, "stream" (loaded for each use), or "" where there are none.
    """

    kind: str
    tensor: str
    shape: Shape
    layer: str = ""
    sources: tuple[str, ...] = ()
    ring: Ring | None = None
    stage: int = 0
    chunk: int = 0
    weights: str = ""

    def __str__(self) -> str:
        if self.kind == "save":
            return f"save  {_name(self.tensor)}" + (f", stage {self.stage}" if self.stage else "")
        text = f"{self.kind:<5} {_name(self.tensor)}: int8[{'x'.join(map(str, self.shape))}]"
        if self.layer:
            text += f" = {json.dumps(self.layer)}({', '.join(_name(s) for s in self.sources)})"
        if self.ring is not None:
            text += f" -> {self.ring}"
        if self.stage:
            text += f", stage {self.stage}"
        if self.chunk:
            text += f", chunk {self.chunk}"
        if self.weights:
            text += f", weights {self.weights}"
        return text


@dataclass(frozen=True, slots=True)
class Group:
    """Layers that run together, strip by strip.

    Parameters
    ----------
    name : str
    height, rows : int
        Output rows of the last layer, and rows a strip.
    width, cols : int
        Its output columns, and columns a tile (equal: not tiled).
    order : str
        "strips": a strip goes through all layers and chunks; "chunks": a chunk of output channels goes
        through all strips before the next (the weights stay, the input is read again).
    statements : tuple of Statement
    """

    name: str
    height: int
    rows: int
    width: int
    cols: int
    order: str
    statements: tuple[Statement, ...]

    @property
    def strips(self) -> int:
        return -(-self.height // self.rows)

    @property
    def tiles(self) -> int:
        return -(-self.width // self.cols)

    def __str__(self) -> str:
        loops = []
        if self.order == "chunks":
            loops.append("for c in chunks {")
        if self.cols < self.width:
            loops.append(f"for x in 0:{self.width} step {self.cols} {{  # {self.tiles} tiles")
        lag = max((s.stage for s in self.statements), default=0)
        ramp = f", {lag} more to drain" if lag else ""
        noun = "strip" if self.strips == 1 else "strips"
        loops.append(f"for y in 0:{self.height} step {self.rows} {{  # {self.strips} {noun}{ramp}")
        lines = [f"group {json.dumps(self.name)} {{"]
        for i, loop in enumerate(loops):
            lines.append("  " * (i + 1) + loop)
        indent = "  " * (len(loops) + 1)
        lines += [indent + str(s) for s in self.statements]
        lines += ["  " * i + "}" for i in range(len(loops), -1, -1)]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class TileProgram:
    """A scheduled network, before instructions.

    Parameters
    ----------
    name : str
        The graph's name.
    design : str
        `Arch.design_hash` of the machine it is for.
    groups : tuple of Group
    """

    name: str
    design: str
    groups: tuple[Group, ...]

    def __str__(self) -> str:
        return (
            "\n\n".join([f"tiling {json.dumps(self.name)} design {self.design}", *map(str, self.groups)])
            + "\n"
        )

    @classmethod
    def parse(cls, text: str, *, where: str = "tiling") -> TileProgram:
        """Read the text that ``str`` prints; ProgramError names the line that is wrong."""
        return _Reader(text, where).program()


# -- text ------------------------------------------------------------------------------------------------------------
_SIMPLE = re.compile(r"[A-Za-z0-9_.]+\Z")


def _name(tensor: str) -> str:
    return "%" + (tensor if _SIMPLE.match(tensor) else json.dumps(tensor))


_STRING = r'"(?:[^"\\]|\\.)*"'
_TENSOR = rf"%(?:[A-Za-z0-9_.]+|{_STRING})"
_HEAD = re.compile(rf"tiling ({_STRING}) design ([0-9a-f]+)\Z")
_GROUP = re.compile(rf"group ({_STRING}) \{{\Z")
_LOOP = re.compile(r"for ([xy]) in 0:(\d+) step (\d+) \{\Z")
_RING = re.compile(r"maps\.(\d+)\[(\d+)\] (\d+) rows x (\d+)(?: pitch (\d+))? x (\d+) blocks?( folded)?\Z")
_SAVE = re.compile(rf"save\s+({_TENSOR})(?:, stage (\d+))?\Z")
_STATEMENT = re.compile(
    rf"(load|conv|dwc|vec|view)\s+({_TENSOR}): int8\[(\d+)x(\d+)x(\d+)\](?: = ({_STRING})\(((?:{_TENSOR}(?:, )?)*)\))?"
    r"(?: -> (maps[^,]*))?(?:, stage (\d+))?(?:, chunk (\d+))?(?:, weights (resident|stream))?\Z"
)


_QUOTED = re.compile(rf"({_STRING})")


def _bare(line: str) -> str:
    """The line without its comment, blanks outside of quotes folded to one."""
    out = []
    for i, piece in enumerate(_QUOTED.split(line)):
        if i % 2:
            out.append(piece)
            continue
        code, mark, _ = piece.partition("#")
        out.append(re.sub(r"\s+", " ", code))
        if mark:
            break
    return "".join(out).strip()


def _unname(text: str) -> str:
    body = text[1:]
    return str(json.loads(body)) if body.startswith('"') else body


class _Reader:
    def __init__(self, text: str, where: str) -> None:
        numbered = ((i, _bare(raw)) for i, raw in enumerate(text.splitlines(), 1))
        self.lines = [(i, line) for i, line in numbered if line]
        self.where, self.at = where, 0

    def fail(self, want: str) -> ProgramError:
        if self.at >= len(self.lines):
            return ProgramError(f"{self.where}: the text ends where {want} should stand")
        number, line = self.lines[self.at]
        return ProgramError(f"{self.where}, line {number}: want {want}, got {line!r}", line=number)

    def match(self, pattern: re.Pattern[str], want: str) -> re.Match[str]:
        found = pattern.match(self.lines[self.at][1]) if self.at < len(self.lines) else None
        if found is None:
            raise self.fail(want)
        self.at += 1
        return found

    def peek(self) -> str:
        return self.lines[self.at][1] if self.at < len(self.lines) else ""

    def program(self) -> TileProgram:
        head = self.match(_HEAD, 'tiling "name" design HASH')
        groups = []
        while self.at < len(self.lines):
            groups.append(self.group())
        return TileProgram(json.loads(head[1]), head[2], tuple(groups))

    def group(self) -> Group:
        name = json.loads(self.match(_GROUP, 'group "name" {')[1])
        order, width = "strips", None
        depth = 1
        if self.peek() == "for c in chunks {":
            order, depth = "chunks", 2
            self.at += 1
        extents: dict[str, tuple[int, int]] = {}
        while (found := _LOOP.match(self.peek())) is not None:
            extents[found[1]] = (int(found[2]), int(found[3]))
            self.at, depth = self.at + 1, depth + 1
        if "y" not in extents or extents["y"][1] < 1:
            raise self.fail("for y in 0:HEIGHT step ROWS { (ROWS at least 1)")
        statements = []
        while self.peek() != "}":
            statements.append(self.statement())
        for _ in range(depth):
            if self.peek() != "}":
                raise self.fail("}")
            self.at += 1
        width = statements[-1].shape[1] if statements else 0
        for s in reversed(statements):
            if s.kind not in {"load", "save"}:
                width = s.shape[1]
                break
        height, rows = extents["y"]
        wide, cols = extents.get("x", (width, width))
        return Group(name, height, rows, wide, cols, order, tuple(statements))

    def statement(self) -> Statement:
        line = self.peek()
        if line.startswith("save"):
            found = self.match(_SAVE, "save %tensor")
            return Statement("save", _unname(found[1]), (0, 0, 0), stage=int(found[2] or 0))
        found = self.match(
            _STATEMENT,
            'load, conv, dwc, vec, view or save, as in  conv %y: int8[HxWxC] = "layer"(%x) -> maps.0[0] R rows x W x B blocks',
        )
        kind, tensor, h, w, c, layer, sources, ring, stage, chunk, weights = found.groups()
        names = tuple(_unname(t) for t in re.findall(_TENSOR, sources or ""))
        return Statement(
            kind,
            _unname(tensor),
            (int(h), int(w), int(c)),
            json.loads(layer) if layer else "",
            names,
            self.ring(ring) if ring else None,
            int(stage or 0),
            int(chunk or 0),
            weights or "",
        )

    def ring(self, text: str) -> Ring:
        found = _RING.match(text.strip())
        if found is None:
            self.at -= 1
            raise self.fail("a ring as in maps.0[128] 12 rows x 56 x 2 blocks")
        group, base, rows, width, pitch, blocks, fold = found.groups()
        return Ring(
            int(group), int(base), int(rows), int(width), int(pitch or width), int(blocks), fold is not None
        )
