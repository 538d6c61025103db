"""The little SVG that the page's drawings need: elements, a logarithmic scale, nothing that could run."""

from __future__ import annotations

from html import escape
from math import floor, log10

from .palette import plain

__all__ = ["Log", "svg", "tag", "words"]


def tag(name: str, *inside: str, **attributes: object) -> str:
    """An element. Attribute values are escaped, `inside` is taken as it is; ``_`` in names becomes ``-``.

    >>> tag("text", "a", x=1.25, class_="tick")
    '<text x="1.25" class="tick">a</text>'
    """
    text = "".join(f' {k.rstrip("_").replace("_", "-")}="{_value(v)}"' for k, v in attributes.items())
    return f"<{name}{text}>{''.join(inside)}</{name}>" if inside else f"<{name}{text}/>"


def svg(width: int, height: int, label: str, *inside: str, class_: str = "drawing") -> str:
    """A drawing that scales to its column, read out as `label`."""
    return tag(
        "svg", *inside, viewBox=f"0 0 {width} {height}", role="img", aria_label=plain(label), class_=class_
    )


def _value(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return escape(plain(str(value)))


def words(text: str) -> str:
    """Text for inside an element."""
    return escape(plain(text))


class Log:
    """A logarithmic scale: value to pixels.

    Parameters
    ----------
    low, high : float
        Values, both positive.
    start, stop : float
        Pixels at `low` and `high`.
    """

    def __init__(self, low: float, high: float, start: float, stop: float) -> None:
        self.low, self.high, self.start, self.stop = low, high, start, stop

    def __call__(self, value: float) -> float:
        share = (log10(value) - log10(self.low)) / (log10(self.high) - log10(self.low))
        return self.start + min(1.0, max(0.0, share)) * (self.stop - self.start)

    def ticks(self) -> list[float]:
        """Decades, with 2 and 5 between them where there are few."""
        decades = range(floor(log10(self.low)), floor(log10(self.high)) + 1)
        steps = (1, 2, 5) if log10(self.high / self.low) < 2.2 else (1,)
        values = [s * 10.0**d for d in decades for s in steps]
        return [v for v in values if self.low <= v <= self.high]
