"""Weight images: the bytes that FILL streams into the weight, depthwise, table and vector memories.

Records and their order are those of docs/isa.md: for each output block a parameter word (bias with the input's
zero point folded in, scale), then the taps.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..ir.arch import Arch
from ..ir.depthwise import tail_taps, tap_place
from ..ir.errors import ModelError
from .layers import Part

__all__ = ["Fold", "array_records", "depthwise_records", "fold_of", "parameter_words"]

Bytes = NDArray[np.uint8]
_INT32 = 2**31


class Fold:
    """Kernel columns folded into lanes: a map word holds `columns` neighbouring pixels' channels.

    For few input channels: a word of the source holds ``columns * channels`` bytes, `words` such words cover a
    kernel row, and the array runs the kernel as (kh, 1) over `words` channel blocks.
    """

    __slots__ = ("channels", "columns", "words")

    def __init__(self, channels: int, kernel: int, lanes: int) -> None:
        self.channels = channels
        self.columns = min(kernel, lanes // channels)
        self.words = -(-kernel // self.columns)


def fold_of(part: Part, channels: int, lanes: int) -> Fold | None:
    """The fold for a convolution of a map of `channels` channels, where it saves steps."""
    if part.depthwise or 2 * channels > lanes or part.window.kernel[1] == 1 or part.window.dilation[1] != 1:
        return None
    return Fold(channels, part.window.kernel[1], lanes)


def parameter_words(lanes: int) -> int:
    """Words of a record that hold the 8 bytes of bias and scale."""
    return -(-8 // lanes)


def _parameters(part: Part, zero_point: int, where: str, low: int, high: int, lanes: int) -> Bytes:
    """Bias and scale of output channels low..high-1, 8 bytes each: uint8 (lanes, 8); absent channels are zero."""
    bias = part.bias[low:high].astype(np.int64)
    if not part.raw:
        bias -= zero_point * part.weight[low:high].sum(axis=(1, 2, 3), dtype=np.int64)
    if np.any(np.abs(bias) >= _INT32):
        worst = int(np.abs(bias).argmax())
        raise ModelError(
            f"{where}: bias of output channel {part.offset + low + worst} is {bias[worst]} with the zero point folded "
            f"in, beyond int32 ({_INT32 - 1}); its scale is too small: quantise the model with a wider weight range",
            node=where,
        )
    out = np.zeros((lanes, 8), np.uint8)
    n = len(bias)
    out[:n, :4] = bias.astype("<i4").view(np.uint8).reshape(n, 4)
    out[:n, 4:] = part.scale[low:high].astype("<u4").view(np.uint8).reshape(n, 4)
    return out


def _parameter_rows(params: Bytes, lanes: int) -> list[Bytes]:
    return [params[:, i : i + lanes].T.ravel() for i in range(0, 8, lanes)]


def array_records(
    part: Part, arch: Arch, zero_point: int, where: str, first: int, stop: int, *,
    fold: Fold | None = None, inputs: tuple[int, int] | None = None,
) -> Bytes:  # fmt: skip
    """Records of output blocks first..stop-1 for the MAC array.

    Parameters
    ----------
    fold : Fold, optional
        The source is folded.
    inputs : (first, stop), optional
        Only these input blocks (a reduction split over instructions).
    """
    lanes, oc = arch.lanes, arch.conv.oc
    o, kh, kw, n = part.weight.shape
    out: list[Bytes] = []
    if part.depthwise:
        taps = part.weight[:, :, :, 0].reshape(o, kh * kw)
        for ob in range(first, stop):
            out += _parameter_rows(_parameters(part, zero_point, where, ob * oc, (ob + 1) * oc, oc), lanes)
            block = np.zeros((oc, kh * kw), np.int8)
            block[: min(oc, o - ob * oc)] = taps[ob * oc : (ob + 1) * oc]
            out += [block[:, t : t + lanes].T.ravel().view(np.uint8) for t in range(0, kh * kw, lanes)]
        return np.concatenate(out)
    rows = part.weight[first * oc : stop * oc]
    if fold is not None:
        wide = np.zeros((len(rows), kh, 1, fold.words * lanes), np.int8)
        for x in range(kw):
            at = x // fold.columns * lanes + x % fold.columns * fold.channels
            wide[:, :, 0, at : at + n] = rows[:, :, x]
    else:
        lead = part.channels[0] % lanes
        wide = np.zeros((len(rows), kh, kw, -(-(lead + n) // lanes) * lanes), np.int8)
        wide[..., lead : lead + n] = rows
    if inputs is not None:
        wide = wide[..., inputs[0] * lanes : inputs[1] * lanes]
    for ob in range(first, stop):
        out += _parameter_rows(_parameters(part, zero_point, where, ob * oc, (ob + 1) * oc, oc), lanes)
        block = np.zeros((oc, *wide.shape[1:]), np.int8)
        here = wide[(ob - first) * oc : (ob - first + 1) * oc]
        block[: len(here)] = here
        words = block.reshape(oc, -1, lanes).transpose(1, 2, 0)  # (tap, input block) major, then input lane
        out.append(np.ascontiguousarray(words).ravel().view(np.uint8))
    return np.concatenate(out)


def depthwise_records(part: Part, arch: Arch, zero_point: int, where: str, first: int, stop: int) -> Bytes:
    """Records of channel blocks first..stop-1 for the depthwise engine."""
    lanes = arch.lanes
    o, kh, kw, _ = part.weight.shape
    taps = part.weight[:, :, :, 0].reshape(o, kh * kw)
    slots, place = arch.dwc.taps, tap_place(arch.dwc.taps, kh, kw)
    size = (int(place[-1, 0])) * slots + tail_taps(arch.dwc.taps, kh, kw)
    out: list[Bytes] = []
    for b in range(first, stop):
        params = _parameters(part, zero_point, where, b * lanes, (b + 1) * lanes, lanes)
        out += _parameter_rows(params, slots)
        block = np.zeros((size, lanes), np.int8)
        n = min(lanes, o - b * lanes)
        block[place[:, 0] * slots + place[:, 1], :n] = taps[b * lanes : b * lanes + n].T
        out.append(block.ravel().view(np.uint8))
    return np.concatenate(out)
