"""Expressions over named quantities, as constraints of a space write them: parsed into a tree, walked, never `eval`.

>>> holds = parse("dsp <= 0.8 * board.dsp and conv.pixels in (4, 8)", {"dsp", "board.dsp", "conv.pixels"})
>>> holds.value({"dsp": 900, "board.dsp": 1248, "conv.pixels": 8})
True

What is legal is a table: numbers, strings, truth values, names with dots, ``+ - * / // % **``, comparisons, ``in``,
``and or not``, ``A if B else C``, and the functions of `FUNCTIONS`. Anything else is refused with its place.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any

from .ir.errors import ArchError

__all__ = ["FUNCTIONS", "Expression", "parse"]

LONGEST, DEEPEST = 1000, 40
"""Characters of an expression and levels of its tree; longer ones are not written by people."""
HIGHEST_POWER = 16
"""Largest exponent: integers stay of a size that costs nothing."""

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "ceil": math.ceil,
    "floor": math.floor,
    "log2": math.log2,
    "max": max,
    "min": min,
    "round": round,
    "sqrt": math.sqrt,
}
_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
    ast.Not: operator.not_,
}


@dataclass(frozen=True, slots=True)
class Expression:
    """A legal expression.

    Parameters
    ----------
    text : str
    names : tuple of str
        Quantities it reads, in order of appearance.
    """

    text: str
    names: tuple[str, ...]
    tree: ast.expr = field(repr=False, compare=False)

    def value(self, quantities: Mapping[str, Any]) -> Any:
        """Its value.

        Raises
        ------
        ArchError
            It divides by zero, or a string meets a number.
        """
        try:
            return _value(self.tree, quantities)
        except (ArithmeticError, TypeError, ValueError) as error:
            raise ArchError(f"`{self.text}` has no value with {self.told(quantities)}: {error}") from None

    def told(self, quantities: Mapping[str, Any]) -> str:
        """The quantities it read, for a message.

        >>> parse("dsp <= 600", {"dsp"}).told({"dsp": 742})
        'dsp = 742'
        """
        return ", ".join(f"{n} = {_shown(quantities.get(n))}" for n in self.names)


def parse(text: str, known: Collection[str], *, where: str = "expression") -> Expression:
    """Check an expression and the names in it.

    Parameters
    ----------
    known : collection of str
        Quantities that it may name.
    where : str
        Said first in a message.

    Raises
    ------
    ArchError
        Not an expression, something that is not allowed, an unknown name; with the column.
    """
    start = f"{where}: `{text[:80]}{'…' if len(text) > 80 else ''}`"
    if len(text) > LONGEST:
        raise ArchError(f"{start} has {len(text)} characters, at most {LONGEST} are read: write it in parts")
    source = text.strip()
    try:
        tree = ast.parse(source, mode="eval").body
    except SyntaxError as error:
        raise ArchError(f"{start}, column {error.offset or 1}: not an expression ({error.msg})") from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise ArchError(f"{start}: not an expression ({error or type(error).__name__})") from None
    names: dict[str, None] = {}
    _check(tree, known, names, source, start, 0)
    return Expression(source, tuple(names), tree)


def _check(
    node: ast.expr, known: Collection[str], names: dict[str, None], source: str, start: str, depth: int
) -> None:
    """Refuse what is not in the table; gather names."""

    def refuse(what: str) -> ArchError:
        part = ast.get_source_segment(source, node) or ""
        return ArchError(f"{start}, column {node.col_offset + 1}, `{part[:40]}`: {what}")

    if depth > DEEPEST:
        raise refuse(f"nested deeper than {DEEPEST} levels: write it in parts")
    inside: list[ast.expr] = []
    match node:
        case ast.Name() | ast.Attribute():
            name = _dotted(node)
            if name is None:
                raise refuse("only names with dots between, as conv.pixels, may stand here")
            if name not in known:
                near = get_close_matches(name, list(known), 1)
                hint = f"did you mean {near[0]}?" if near else f"there are {_some(known)}"
                raise refuse(f"no quantity of this name; {hint}")
            names[name] = None
        case ast.Constant(value=value):
            if not isinstance(value, bool | int | float | str):
                raise refuse("only numbers, strings and True or False may stand here")
        case ast.BinOp(left=left, op=op, right=right):
            if type(op) not in _ARITHMETIC:
                raise refuse("only + - * / // % ** compute here")
            inside = [left, right]
        case ast.UnaryOp(op=op, operand=operand):
            if type(op) not in _UNARY:
                raise refuse("only - and not may stand before a value")
            inside = [operand]
        case ast.BoolOp(values=values):
            inside = values
        case ast.Compare(left=left, ops=ops, comparators=rest):
            if any(type(op) not in _COMPARE for op in ops):
                raise refuse("only < <= > >= == != in compare here")
            inside = [left, *rest]
        case ast.IfExp(test=test, body=body, orelse=orelse):
            inside = [test, body, orelse]
        case ast.Tuple(elts=elts) | ast.List(elts=elts):
            inside = elts
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
            if not args or any(isinstance(a, ast.Starred) for a in args):
                raise refuse("a function takes values, separated by commas")
            inside = args
        case ast.Call():
            raise refuse(f"only these functions are known: {', '.join(FUNCTIONS)}")
        case _:
            raise refuse("not allowed in an expression")
    for part in inside:
        _check(part, known, names, source, start, depth + 1)


def _dotted(node: ast.expr) -> str | None:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else None


def _value(node: ast.expr, quantities: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name() | ast.Attribute():
            return quantities[_dotted(node) or ""]
        case ast.Constant(value=value):
            return value
        case ast.BinOp(left=left, op=op, right=right):
            a, b = _number(_value(left, quantities)), _number(_value(right, quantities))
            if isinstance(op, ast.Pow) and abs(b) > HIGHEST_POWER:
                raise ValueError(f"exponent {b} is above {HIGHEST_POWER}")
            return _ARITHMETIC[type(op)](a, b)
        case ast.UnaryOp(op=op, operand=operand):
            return _UNARY[type(op)](_value(operand, quantities))
        case ast.BoolOp(op=ast.And(), values=values):
            return all(_value(v, quantities) for v in values)
        case ast.BoolOp(values=values):
            return any(_value(v, quantities) for v in values)
        case ast.Compare(left=left, ops=ops, comparators=rest):
            a = _value(left, quantities)
            for sign, right in zip(ops, rest, strict=True):
                b = _value(right, quantities)
                if not _COMPARE[type(sign)](a, b):
                    return False
                a = b
            return True
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return _value(body if _value(test, quantities) else orelse, quantities)
        case ast.Tuple(elts=elts) | ast.List(elts=elts):
            return tuple(_value(v, quantities) for v in elts)
        case ast.Call(func=ast.Name(id=name), args=args):
            return FUNCTIONS[name](*(_value(a, quantities) for a in args))
        case _:
            raise AssertionError(f"{type(node).__name__} passed the check")


def _number(value: Any) -> Any:
    if not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return value


def _shown(value: Any) -> str:
    return (
        f"{value:,.6g}" if isinstance(value, float) else repr(value) if isinstance(value, str) else str(value)
    )


def _some(known: Collection[str]) -> str:
    first = sorted(known)[:8]
    return ", ".join(first) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
