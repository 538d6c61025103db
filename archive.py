"""Frozen dataclasses in one file: structure as JSON, arrays and bytes beside it, in a plain ``.npz``.

Only classes named by the reader are built again, and only by their own constructor, so that their checks run on
what a file says; nothing in a file is executed.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from .ir.errors import ReportError, TilewrightError

__all__ = ["pack", "unpack"]

_STRUCTURE = "structure"


def pack(value: Any) -> bytes:
    """A dataclass tree as the bytes of an ``.npz``; equal values give equal bytes.

    Dataclasses, tuples, lists, dicts, arrays, bytes, numbers, strings and None are kept as what they are.
    """
    arrays: dict[str, Any] = {}
    structure = json.dumps(_flatten(value, arrays), separators=(",", ":"))
    arrays = {_STRUCTURE: np.frombuffer(structure.encode(), np.uint8), **arrays}
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as file:
        for name, array in arrays.items():
            member = io.BytesIO()
            np.lib.format.write_array(member, np.asarray(array, order="C"), allow_pickle=False)
            # A fixed date: the same model gives the same bytes (1980-01-01 is the first that zip can say).
            file.writestr(zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), member.getvalue())
    return out.getvalue()


def unpack(data: bytes, classes: Iterable[type[Any]], *, where: str) -> Any:
    """The inverse of `pack`, for trees of these classes.

    Raises
    ------
    ReportError
        Bytes that are no archive, are cut off, or name a class that is not among `classes`.
    """
    known = {c.__name__: c for c in classes}
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return _grow(json.loads(arrays[_STRUCTURE].tobytes()), arrays, known)
    except TilewrightError:
        raise
    except (OSError, ValueError, KeyError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ReportError(
            f"{where}: cannot be read ({type(error).__name__}: {error}); it is cut off, damaged, or written by another "
            "version: compile the network again"
        ) from None


def _flatten(value: Any, arrays: dict[str, Any]) -> Any:
    """JSON for a value; ``{"=": kind, ...}`` marks what JSON cannot say."""
    if is_dataclass(value) and not isinstance(value, type):
        members = {f.name: _flatten(getattr(value, f.name), arrays) for f in fields(value) if f.init}
        return {"=": type(value).__name__, **members}
    if isinstance(value, np.ndarray | bytes):
        name = f"a{len(arrays)}"
        arrays[name] = np.frombuffer(value, np.uint8) if isinstance(value, bytes) else value
        return {"=": "bytes" if isinstance(value, bytes) else "array", "name": name}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple):
        return {"=": "tuple", "items": [_flatten(v, arrays) for v in value]}
    if isinstance(value, list):
        return [_flatten(v, arrays) for v in value]
    if isinstance(value, dict) or hasattr(value, "items"):
        return {"=": "dict", "items": [[_flatten(k, arrays), _flatten(v, arrays)] for k, v in value.items()]}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} cannot be archived")


def _grow(node: Any, arrays: dict[str, Any], known: dict[str, type[Any]]) -> Any:
    if isinstance(node, list):
        return [_grow(v, arrays, known) for v in node]
    if not isinstance(node, dict):
        return node
    kind = node["="]
    if kind == "array":
        return arrays[node["name"]]
    if kind == "bytes":
        return arrays[node["name"]].tobytes()
    if kind == "tuple":
        return tuple(_grow(v, arrays, known) for v in node["items"])
    if kind == "dict":
        return {_grow(k, arrays, known): _grow(v, arrays, known) for k, v in node["items"]}
    if kind not in known:
        raise ValueError(f"class {kind} does not belong here")
    return known[kind](**{k: _grow(v, arrays, known) for k, v in node.items() if k != "="})
