"""What a page holds inside itself: its parts from the package, their hashes for its policy, JSON that no text can end."""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import Any

__all__ = ["json_block", "part", "policy", "source_hash"]


@cache
def part(name: str) -> str:
    """A style sheet, script or template of this folder."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def source_hash(text: str) -> str:
    """As a content security policy names a script or style.

    >>> source_hash("")
    "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='"
    """
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def policy(style: str, script: str) -> str:
    """The policy that allows one style sheet, one script, and nothing else."""
    return (
        f"default-src 'none'; script-src {source_hash(script)}; style-src {source_hash(style)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def json_block(value: Any) -> str:
    """JSON that no text inside can end early: ``<`` never appears in it."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
