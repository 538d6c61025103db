"""Graphs as exact text: every attribute of every operator, arrays by name.

    graph "net" (%x) -> (%y)
    %x: int8[4x4x3] scale 0.02 zero 3
    %y: int8[4x4x8] scale 0.05 zero -4 = Conv "c0" (%x) weight=@0 bias=@1 scale_word=@2 window=(1, 1) / (1, 1) / (1, 1) / (0, 0, 0, 0) mode='f32'

Arrays stand apart, in a dictionary by number; the text and the dictionary together are the graph.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import MISSING, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from . import graph as operators
from .errors import ModelError
from .graph import Graph, Op, Quant, Tensor, Window

__all__ = ["parse_graph", "print_graph"]

Arrays = dict[str, NDArray[Any]]

_PLAIN = {"name", "inputs", "output"}
_SIMPLE = re.compile(r"[A-Za-z0-9_.]+\Z")
_TENSOR = r'%(?:[A-Za-z0-9_.]+|"(?:[^"\\]|\\.)*")'
_HEAD = re.compile(
    rf'graph ("(?:[^"\\]|\\.)*") \(((?:{_TENSOR}(?:, )?)*)\) -> \(((?:{_TENSOR}(?:, )?)*)\)(?: frames (\d+))?\Z'
)
_LINE = re.compile(
    rf'({_TENSOR}): int8\[(\d+)x(\d+)x(\d+)\] scale (\S+) zero (-?\d+)(?: = (\w+) ("(?:[^"\\]|\\.)*") \(((?:{_TENSOR}(?:, )?)*)\)(.*))?\Z'
)
_ATTRIBUTE = re.compile(r" (\w+)=((?:@\d+)|(?:(?! \w+=).)+)")


def print_graph(graph: Graph) -> tuple[str, Arrays]:
    """Text and arrays of a graph; `parse_graph` reads them back to an equal value."""
    arrays: Arrays = {}
    lines = [f"graph {json.dumps(graph.name)} ({_names(graph.inputs)}) -> ({_names(graph.outputs)})"]
    if graph.frames > 1:
        lines[0] += f" frames {graph.frames}"
    made = graph.producer
    order = [*graph.inputs, *(op.output for op in graph.ops)]
    for name in order:
        t = graph.tensors[name]
        line = f"{_name(name)}: int8[{'x'.join(map(str, t.shape))}] scale {t.quant.scale!r} zero {t.quant.zero_point}"
        if name in made:
            line += _operator(made[name], arrays)
        lines.append(line)
    return "\n".join(lines) + "\n", arrays


def _operator(op: Op, arrays: Arrays) -> str:
    text = f" = {type(op).__name__} {json.dumps(op.name)} ({_names(op.inputs)})"
    for f in fields(op):
        value = getattr(op, f.name)
        if f.name in _PLAIN or (
            f.default is not MISSING and not isinstance(value, np.ndarray) and value == f.default
        ):
            continue
        if isinstance(value, np.ndarray):
            key = str(len(arrays))
            arrays[key] = value
            text += f" {f.name}=@{key}"
        elif isinstance(value, Window):
            text += f" {f.name}={value.kernel} / {value.stride} / {value.dilation} / {value.pad}"
        else:
            text += f" {f.name}={value!r}"
    return text


def parse_graph(text: str, arrays: Arrays) -> Graph:
    """The graph of a text and its arrays.

    Raises
    ------
    ModelError
        A line is not of the form, an operator or attribute is unknown, or an array is missing; the graph's own rules.
    """
    head, *lines = [line for line in text.splitlines() if line.strip()] or [""]
    found = _HEAD.match(head)
    if found is None:
        raise ModelError(f'graph text, line 1: want graph "name" (%inputs) -> (%outputs), got {head!r}')
    tensors: dict[str, Tensor] = {}
    ops: list[Op] = []
    for number, line in enumerate(lines, 2):
        part = _LINE.match(line)
        if part is None:
            raise ModelError(
                f"graph text, line {number}: want %tensor: int8[HxWxC] scale S zero Z = Operator ..., got {line!r}"
            )
        name, h, w, c, scale, zero, kind, op_name, inputs, attributes = part.groups()
        name = _unname(name)
        tensors[name] = Tensor(name, (int(h), int(w), int(c)), Quant(float(scale), int(zero)))
        if kind is not None:
            ops.append(_build(number, kind, json.loads(op_name), _tensors(inputs), name, attributes, arrays))
    return Graph(
        json.loads(found[1]), tensors, tuple(ops), _tensors(found[2]), _tensors(found[3]), int(found[4] or 1)
    )


def _build(
    number: int, kind: str, name: str, inputs: tuple[str, ...], output: str, attributes: str, arrays: Arrays
) -> Op:
    cls = getattr(operators, kind, None)
    if not (isinstance(cls, type) and issubclass(cls, Op) and cls is not Op):
        raise ModelError(f"graph text, line {number}: {kind} is no operator")
    known = {f.name for f in fields(cls)}
    values: dict[str, Any] = {}
    for key, text in _ATTRIBUTE.findall(attributes):
        if key not in known:
            raise ModelError(f"graph text, line {number}: {kind} has no attribute {key}")
        try:
            if text.startswith("@"):
                values[key] = arrays[text[1:]]
            elif key == "window":
                values[key] = Window(*map(ast.literal_eval, text.split(" / ")))
            else:
                values[key] = ast.literal_eval(text)
        except KeyError:
            raise ModelError(f"graph text, line {number}: array {text} of {key} is not given") from None
        except (ValueError, SyntaxError):
            raise ModelError(f"graph text, line {number}: {key}={text} is no value") from None
    return cls(name, inputs, output, **values)


def _name(tensor: str) -> str:
    return "%" + (tensor if _SIMPLE.match(tensor) else json.dumps(tensor))


def _names(tensors: tuple[str, ...]) -> str:
    return ", ".join(map(_name, tensors))


def _unname(text: str) -> str:
    body = text[1:]
    return str(json.loads(body)) if body.startswith('"') else body


def _tensors(text: str) -> tuple[str, ...]:
    return tuple(_unname(t) for t in re.findall(_TENSOR, text))
