"""Colours and the words for numbers, shared by every format of the report.

Engine and class colours are Okabe and Ito's set ("Color Universal Design", 2008), which stays apart in the common
kinds of colour blindness; wine and olive are from Tol's muted scheme (SRON/EPS/TN/09-002, 2021) for the same reason.
"""

from __future__ import annotations

from math import isfinite

__all__ = [
    "CLASSES",
    "COMPONENTS",
    "ENGINES",
    "INK",
    "MUTED",
    "count",
    "latin",
    "plain",
    "short",
    "shorten",
    "si",
]

INK, MUTED = "#1d2330", "#667085"
"""Of figures; the page has its own for day and night."""

ENGINES = {"load": "#56B4E9", "conv": "#0072B2", "dwc": "#D55E00", "vec": "#009E73", "save": "#CC79A7"}
CLASSES = {"weights": "#E69F00", "ifmap": "#56B4E9", "ofmap": "#CC79A7", "instructions": "#8A8F98"}
COMPONENTS = {
    "dram": "#882255",
    "maps": "#56B4E9",
    "weights": "#E69F00",
    "mac": "#0072B2",
    "depthwise": "#D55E00",
    "vector": "#009E73",
    "control": "#999933",
    "static": "#8A8F98",
}
"""`hwsim.results.Energy` components."""


def si(value: float, unit: str = "", digits: int = 3) -> str:
    """A number with a prefix, for reading: never for a file that a program reads.

    >>> si(300_774_272, "MAC"), si(0.00042, "J"), si(0, "B")
    ('301 MMAC', '420 µJ', '0 B')
    """
    if not isfinite(value):
        return f"∞ {unit}".rstrip()
    if value == 0:
        return f"0 {unit}".rstrip()
    for factor, prefix in (
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
        (1.0, ""),
        (1e-3, "m"),
        (1e-6, "µ"),
        (1e-9, "n"),
    ):
        if abs(value) >= factor * 0.9995 or prefix == "n":
            break
    scaled = value / factor
    decimals = max(0, digits - len(str(int(abs(scaled) + 0.0005))))
    text = f"{scaled:,.{decimals}f}"
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text} {prefix}{unit}".rstrip()


def short(value: float) -> str:
    """Three digits or whole numbers, never an exponent above 1.

    >>> short(0.1234), short(45.67), short(1612.3), short(0.0)
    ('0.123', '45.7', '1,612', '0')
    """
    return f"{value:,.0f}" if abs(value) >= 100 or value == 0 else f"{value:.3g}"


def count(value: int) -> str:
    """An exact integer, in groups of three.

    >>> count(1234567)
    '1,234,567'
    """
    return f"{value:,}"


def plain(text: str) -> str:
    """`text` without control characters and lone surrogates: names come from files that anybody can write."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def shorten(text: str, limit: int = 28) -> str:
    """At most `limit` characters: the start and, since layer names differ there, the end.

    >>> shorten("features.17.conv.2.weights.quantised", 20)
    'features.…quantised'
    """
    text = plain(text)
    if len(text) <= limit:
        return text
    half = (limit - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def latin(text: str) -> str:
    """Only what the figures' font has outlines for; everything else would be an empty box.

    >>> latin("Größe…层")
    'Größe…?'
    """
    return "".join(c if ord(c) < 0x250 or c == "…" else "?" for c in text)
