"""A module's Verilog, as Yosys writes it, with expressions in place of numbered wires and registers side by side.

Yosys gives every operator a wire, ``n1 = a & b``, and every register a block. Here a wire that is read once goes to where it
is read, ``(a & b)``, as long as lines stay short; and neighbouring blocks that differ in their registers only become one.

An operand of Verilog is as wide as what stands around it, so an expression takes a wire's place only if it is as wide by
itself, and where it means the same: operators that do not care about further bits (``&``, not ``+``) anywhere, others
where all around is exactly as wide as the wire was, signed ones not at all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["readable"]

_LONGEST = 116
"""Characters of a line that has taken an expression in."""
_NAME = r"(?:\\\S+ |[A-Za-z_]\w*)"
_ITEM = rf"{_NAME}(?:\[[^\]]*\])?|\d+'h[0-9a-f]+|\{{[^{{}}]*\}}"
_ATOM = rf"(?:{_ITEM}|\$signed\((?:{_ITEM})\))"
_TERNARY = re.compile(rf"({_ATOM}) \? ({_ATOM}) : ({_ATOM})")
_BINARY = re.compile(rf"({_ATOM}) ([-+*&|^<>]|[=!<>]=|&&|\|\||<<|>>) ({_ATOM})")
_UNARY = re.compile(rf"([-~!&|^]) ({_ATOM})")
_STATEMENT = re.compile(rf"( *(?:assign )?)({_NAME}(?:\[[^\]]*\])?|\{{[^{{}}]*\}}) (<?=) (.*);")
_IF = re.compile(r"( *(?:end else |else )?if \()(n\d+)(\).*)")
_WIRE = re.compile(r"n\d+")
_DECLARED = re.compile(
    rf"  (?:input |output |wire |reg )+(signed )?(?:\[(\d+):0\] )?({_NAME})( ?\[\d+:\d+\])?(?: = .*)?;"
)
_ZERO = re.compile(r"'h0+(?![0-9a-f])")
_BLOCK = re.compile(
    r"^  always @\(posedge clk\)(?: begin\n(?:    .*\n)*?  end\n|\n    [^\n]*\n)", re.MULTILINE
)
_DECLARATION = re.compile(
    rf"  (?:input|output|wire|reg) (?:signed )?(?:\[\d+:0\] )?{_NAME}(?: ?\[\d+:\d+\])?(?: = [^;]*)?;|  \(\*.*\*\)"
)
_INIT = re.compile(r"^  \(\* init = .*\n", re.MULTILINE)
"""Of a wire that a register drives, which says it too."""
_KIND = re.compile(r"  (wire|reg) (?:signed )?(?:\[(\d+):0\] )?")
_CONNECTIONS = re.compile(r"^((?:    \.\S.*\n){2,})(?=  \);)", re.MULTILINE)
_CHOICE = re.compile(r"^( +)(\d+'[bh][0-9a-f?x]+|default):\n +([^ \n].*;)\n", re.MULTILINE)
_CASES = re.compile(r"(?:^ +(?:\d+'[bh][0-9a-f?x]+|default):\n +[^ \n].*;\n)+", re.MULTILINE)
_BARE_HEAD = re.compile(r"(?:^ +(?:end )?(?:else )?if \(.*\)|^ +else|:)$", re.MULTILINE)
_ASSIGNS = re.compile(r"^ +[^ ].* <= .*;$")

_BITWISE, _COMPARE = ("&", "|", "^"), ("==", "!=", "<", ">", "<=", ">=")


def readable(module: str) -> str:
    """The same module, easier to read."""
    text = _join(_inline(_ZERO.sub("'h0", _INIT.sub("", module))))
    return _declare(_CASES.sub(_case, _CONNECTIONS.sub(_connected, text)))


def _connected(found: re.Match[str]) -> str:
    """Connections of an instance, several in a line."""
    rows = [found[1].splitlines()[0]]
    for line in found[1].splitlines()[1:]:
        if len(rows[-1]) + len(line) - 3 <= _LONGEST:
            rows[-1] += line[3:]
        else:
            rows.append(line)
    return "".join(f"{row}\n" for row in rows)


def _case(found: re.Match[str]) -> str:
    """Choices of one statement that follow each other, with the same statement once."""
    rows: list[str] = []
    before = ""
    for choice in _CHOICE.finditer(found[0]):
        gap, key, body = choice.groups()
        if body == before and key == "default":
            rows[-1] = f"{gap}default: {body}"  # it covers those before it
        elif body == before and len(rows[-1]) + len(key) + 2 <= _LONGEST:
            rows[-1] = rows[-1].replace(f": {body}", f", {key}: {body}")
        else:
            rows.append(f"{gap}{key}: {body}")
        before = body
    return "".join(f"{row}\n" for row in rows)


def _declare(module: str) -> str:
    """Ports, then wires, then registers; those of one width side by side, numbered ones last."""
    if not module.startswith("module "):
        return module
    lines = module.splitlines()
    end = next(i for i, line in enumerate(lines) if i and not _DECLARATION.fullmatch(line))
    ports, marked = [], []
    kinds: dict[tuple[bool, bool, int, str], list[str]] = {}
    for line, before in zip(lines[1:end], lines, strict=False):
        head = _KIND.match(line)
        if line.startswith("  (*") or before.startswith("  (*"):
            marked.append(line)
        elif not head:
            ports.append(line)
        else:
            name = line[head.end() : -1]
            bits = int(head[2] or 0)
            key = name[0] == "n" and _WIRE.fullmatch(name) is not None, head[1] == "reg", bits, head[0]
            kinds.setdefault(key, []).append(name)
    out = [lines[0], *ports]
    for (_, _, _, opening), names in sorted(kinds.items()):
        row = ""
        for name in sorted(names, key=_natural):
            if row and len(opening) + len(row) + len(name) + 3 > _LONGEST:
                out.append(f"{opening}{row};")
                row = ""
            row += f", {name}" if row else name
        out.append(f"{opening}{row};")
    return "".join(f"{line}\n" for line in [*out, *marked, *lines[end:]])


def _natural(name: str) -> list[tuple[int, str]]:
    """Numbers by their value."""
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", name) if part]


# -- registers side by side ----------------------------------------------------------------------------------------------
def _join(module: str) -> str:
    """Neighbouring clocked blocks that are alike but for their assignments become one."""
    out: list[str] = []
    at = 0
    groups: dict[tuple[str, ...], list[list[str]]] = {}

    def flush() -> None:
        for blocks in groups.values():
            merged = ["".join(f"{x}\n" for x in dict.fromkeys(place)) for place in zip(*blocks, strict=True)]
            out.append(f"  always @(posedge clk) begin\n{''.join(merged)}  end\n")
        groups.clear()

    for found in _BLOCK.finditer(module):
        if found.start() != at:
            flush()
            out.append(module[at : found.start()])
        at = found.end()
        places = _places(found[0])
        # Under a condition or case without begin and end there is room for one statement only.
        single = any(_BARE_HEAD.search(p) for p in places)
        skeleton = ("" if _ASSIGNS.match(p.splitlines()[0]) else p for p in places)
        groups.setdefault((str(at),) if single else (*skeleton,), []).append(places)
    flush()
    return "".join([*out, module[at:]])


def _places(block: str) -> list[str]:
    """The block's inner lines; assignments that follow each other are one."""
    inner = block.splitlines()[1:]
    if block.splitlines()[0].endswith("begin"):
        inner.pop()
    out: list[str] = []
    for line in inner:
        left, _, right = line.strip().rstrip(";").partition(" <= ")
        if _ASSIGNS.match(line) and left.strip() == right.strip():
            continue  # a register that keeps its value
        if out and _ASSIGNS.match(line) and _ASSIGNS.match(out[-1].splitlines()[-1]):
            out[-1] += f"\n{line}"
        else:
            out.append(line)
    return out


# -- expressions in place of wires -----------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Expression:
    """What a wire is, and how it may be used.

    Parameters
    ----------
    own : int
        Bits, where nothing around it is wider.
    grows : bool
        In a wider place it is itself with zeros before it.
    atom : bool
        Needs no parentheses.
    """

    text: str
    own: int
    grows: bool
    atom: bool
    signed: bool


class _Module:
    """Widths, and the wires that are read once."""

    def __init__(self, text: str) -> None:
        self.lines = text.splitlines()
        self.width: dict[str, int] = {}
        for line in self.lines:
            if found := _DECLARED.fullmatch(line):
                self.width[found[3]] = 0 if found[1] or found[4] else int(found[2] or 0) + 1
        uses = Counter(_WIRE.findall(text))
        self.source: dict[str, tuple[int, str]] = {}
        for i, line in enumerate(self.lines):
            found = _STATEMENT.fullmatch(line)
            if found and found[1] == "  assign " and _WIRE.fullmatch(found[2]) and uses[found[2]] == 3:
                self.source[found[2]] = i, found[4]
        self.gone: set[str] = set()

    def bits(self, atom: str) -> int:
        """Bits of an item; 0 where that is not known."""
        if atom.startswith("$signed("):
            return self.bits(atom[8:-1])
        if atom.startswith("{"):
            each = [self.bits(part) for part in _parts(atom)]
            return sum(each) if all(each) else 0
        if found := re.match(r"(\d+)'h", atom):
            return int(found[1])
        found = re.fullmatch(rf"({_NAME})(?:\[(\d+)(?::(\d+))?\])?", atom)
        if not found or not self.width.get(found[1]):
            return 0
        if found[2] is None:
            return self.width[found[1]]
        return int(found[2]) - int(found[3]) + 1 if found[3] else 1

    # Each of these gives the text for a place, taking wires in while there is `room` for characters.
    def alone(self, atom: str, room: int, bare: bool = False) -> _Expression:
        """An item that keeps its own width whatever is around it."""
        if atom.startswith("$signed("):
            inner = self.alone(atom[8:-1], room, bare=True)
            return _Expression(f"$signed({inner.text})", self.bits(atom), False, True, True)
        if atom.startswith("{"):
            parts = list(_parts(atom))
            for i, part in enumerate(parts):
                rest = len(atom) - len(part) if not i else sum(len(p) + 2 for p in parts) - len(part)
                parts[i] = self.alone(part, room - rest, bare=True).text
            return _Expression(f"{{ {', '.join(parts)} }}", self.bits(atom), True, True, False)
        plain = _Expression(atom, self.bits(atom), True, True, False)
        if atom not in self.source or not plain.own:
            return plain
        before = set(self.gone)
        found = self.rendered(atom, room - (0 if bare else 2))
        if found is not None and found.own == plain.own and not found.signed:
            return self.taken(atom, found, bare)
        self.gone = before
        return plain

    def within(self, atom: str, context: int, room: int) -> _Expression:
        """An item that becomes as wide as the expression around it."""
        if atom not in self.source:
            return self.alone(atom, room)
        plain = _Expression(atom, self.bits(atom), True, True, False)
        before = set(self.gone)
        found = self.rendered(atom, room - 2) if plain.own and context else None
        if found is not None and not found.signed and found.own == plain.own:
            same = context == plain.own or found.grows
            if same:
                return self.taken(atom, found, False)
        self.gone = before
        return plain

    def taken(self, wire: str, found: _Expression, bare: bool) -> _Expression:
        self.gone.add(wire)
        if not (bare or found.atom):
            found.text = f"({found.text})"
        found.atom = True
        return found

    def rendered(self, wire: str, room: int) -> _Expression | None:
        """The expression of a wire, if there is room for it."""
        found = self.expression(self.source[wire][1], self.width[wire], room)
        return None if found is None or len(found.text) > room else found

    def expression(self, text: str, to: int, room: int) -> _Expression | None:
        """The right side of an assignment to `to` bits."""
        if found := _TERNARY.fullmatch(text):
            a, b, c = found.groups()
            wide = max(to, self.bits(b), self.bits(c))
            if not (self.bits(b) and self.bits(c)):
                return None
            signed = b.startswith("$") or c.startswith("$")
            if_ = self.alone(a, room - 6 - len(b) - len(c))
            then = self.within(b, wide, room - 6 - len(if_.text) - len(c))
            else_ = self.within(c, wide, room - 6 - len(if_.text) - len(then.text))
            return _Expression(
                f"{if_.text} ? {then.text} : {else_.text}",
                max(then.own, else_.own),
                then.grows and else_.grows and not signed,
                False,
                signed,
            )
        if found := _BINARY.fullmatch(text):
            a, op, b = found.groups()
            left, right = self.bits(a), self.bits(b)
            if not (left and right):
                return None
            signed = a.startswith("$") or b.startswith("$")
            room -= len(op) + 2
            wide = max(left, right) if op in _COMPARE else max(to, left, right)
            if op in {"&&", "||"}:
                x = self.alone(a, room - len(b))
                y = self.alone(b, room - len(x.text))
            elif op in {"<<", ">>"}:
                x = self.within(a, max(to, left), room - len(b))
                y = self.alone(b, room - len(x.text))
            else:
                x = self.within(a, wide, room - len(b))
                y = self.within(b, wide, room - len(x.text))
            one = op in _COMPARE or op in {"&&", "||"}
            own = 1 if one else left if op in {"<<", ">>"} else max(left, right)
            grows = one or (op in _BITWISE and x.grows and y.grows and not signed)
            return _Expression(f"{x.text} {op} {y.text}", own, grows, False, signed and not one)
        if found := _UNARY.fullmatch(text):
            op, a = found.groups()
            left = self.bits(a)
            if not left:
                return None
            if op in {"-", "~"}:
                x = self.within(a, max(to, left), room - 2)
                return _Expression(f"{op} {x.text}", left, False, False, a.startswith("$"))
            x = self.alone(a, room - 2)
            return _Expression(f"{op} {x.text}", 1, True, False, False)
        if re.fullmatch(_ATOM, text):
            return self.within(text, to, room) if self.bits(text) == to else self.alone(text, room)
        return None


def _parts(concatenation: str) -> Iterator[str]:
    """Items of ``{ a, b }``."""
    for part in concatenation[1:-1].strip().split(", "):
        yield part if part.endswith("]") or not part.startswith("\\") else f"{part.strip()} "


def _inline(text: str) -> str:
    module = _Module(text)
    out: list[str | None] = list(module.lines)
    reader: dict[str, int] = {}
    for i, line in enumerate(module.lines):
        if not line.startswith("  wire "):
            for wire in _WIRE.findall(line):
                if wire in module.source and module.source[wire][0] != i:
                    reader[wire] = i
    done: set[int] = set()

    def visit(first: int) -> None:
        """Take wires into a line, after the line that may have taken its own in."""
        waiting = [first]
        while (found := _STATEMENT.fullmatch(module.lines[waiting[-1]])) and found[2] in module.source:
            above = reader[found[2]]
            if above in done or above in waiting:
                break
            waiting.append(above)
        for i in reversed(waiting):
            if i not in done:
                done.add(i)
                out[i] = _taking(module, module.lines[i])

    for i in range(len(out)):
        visit(i)
    return _without(module, out)


def _taking(module: _Module, line: str) -> str:
    """The line with what wires are in their place."""
    if found := _STATEMENT.fullmatch(line):
        to, head = module.bits(found[2]), f"{found[1]}{found[2]} {found[3]} "
        if found[2] not in module.gone and to:
            before = set(module.gone)
            right = module.expression(found[4], to, _LONGEST - len(head) - 1)
            if right is not None:
                return f"{head}{_bare(right.text)};"
            module.gone = before
    elif found := _IF.fullmatch(line):
        room = _LONGEST - len(found[1]) - len(found[3])
        return f"{found[1]}{module.alone(found[2], room, bare=True).text}{found[3]}"
    return line


def _bare(text: str) -> str:
    """Without parentheses around all of it."""
    if not text.startswith("("):
        return text
    depth = 0
    for i, letter in enumerate(text):
        depth += (letter == "(") - (letter == ")")
        if depth == 0:
            return text[1:-1] if i == len(text) - 1 else text
    return text


def _without(module: _Module, lines: list[str | None]) -> str:
    for i, line in enumerate(lines):
        if line is None:
            continue
        found = _DECLARED.fullmatch(line)
        if found and found[3] in module.gone:
            lines[i] = None
    for wire in module.gone:
        lines[module.source[wire][0]] = None
    return "".join(f"{line}\n" for line in lines if line is not None)
