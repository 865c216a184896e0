"""Small charts as SVG text: pure functions, coloured by the page's CSS.

Each returns one `<svg>` with `role="img"`, a `<title>` and a `<desc>`. Shapes carry class names and
no colours: the page's style sheet colours them in light and dark. Nothing here needs a script.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

__all__ = ["histogram", "line_chart", "sparkline"]

_WIDTH, _HEIGHT = 380, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 12, 12, 42  # room for tick labels and axis names
_LOG_FLOOR = 0.5  # a logarithmic count axis starts here, so that a single example is seen
_LOG_FROM_RATIO = 50  # fullest over emptiest bin, above which small bins vanish on a linear axis


def sparkline(
    values: Sequence[float | None], *, title: str, width: int = 240, height: int = 64
) -> str:
    """A learning curve on a fixed axis from 0 to 1, one value an epoch.

    None and non-finite values leave a gap; a value between two gaps is a dot.
    """
    left, right, top, bottom = 14, width - 5, 6, height - 6
    points = _points(values, (left, right), (bottom, top), (0.0, 1.0))
    grid = "".join(
        f'<line class="grid" x1="{left}" x2="{right}" y1="{_n(y)}" y2="{_n(y)}"/>'
        for y in (top, (top + bottom) / 2, bottom)
    )
    labels = (
        f'<text class="tick" x="{left - 5}" y="{top + 4}" text-anchor="end">1</text>'
        f'<text class="tick" x="{left - 5}" y="{bottom + 3}" text-anchor="end">0</text>'
    )
    known = [value for value in values if value is not None and math.isfinite(value)]
    desc = f"{len(values)} epochs, " + (
        f"from {known[0]:.2f} to {known[-1]:.2f}" if known else "no values"
    )
    body = grid + labels + _curve(points, "curve")
    return _svg(body, title=title, desc=desc, size=(width, height), kind="spark")


def line_chart(
    epochs: Sequence[int],
    values: Sequence[float | None],
    *,
    title: str,
    y_name: str,
    limits: tuple[float, float] | None = None,
) -> str:
    """One quantity over the epochs, with axes; None and non-finite values leave a gap.

    `limits` fixes the vertical axis; without it the axis runs from 0 or the least value, whichever
    is lower, to a round number above the greatest.
    """
    known = [value for value in values if value is not None and math.isfinite(value)]
    low, high = limits or (min([0.0, *known]), max([0.0, *known]))
    ticks = _round_steps(low, high)
    span = (min(low, ticks[0]), max(high, ticks[-1]))
    frame = (_LEFT, _WIDTH - _RIGHT), (_HEIGHT - _BOTTOM, _TOP)
    body = [_y_axis([(_place(t, span, frame[1]), _short(t)) for t in ticks], y_name)]
    count = max(len(epochs), 2)
    every = max(1, math.ceil(len(epochs) / 8))
    marks = [
        (_place(i, (0, count - 1), frame[0]), str(epochs[i])) for i in range(0, len(epochs), every)
    ]
    body.append(_x_axis(marks, "epoch"))
    body.append(_curve(_points(values, *frame, span), "curve"))
    desc = f"{y_name} over {len(epochs)} epochs, " + (
        f"from {known[0]:.4g} to {known[-1]:.4g}" if known else "no values"
    )
    return _svg("".join(body), title=title, desc=desc)


def histogram(
    edges: Sequence[float],
    counts: Sequence[int],
    highlighted: Sequence[int],
    *,
    title: str,
    x_name: str,
    is_log: bool | None = None,
) -> str:
    """Counts per bin, with a part of each bin (the label issues) drawn in front.

    Each bar starts at the axis: both read against the same ticks. `is_log` None chooses a
    logarithmic count axis where the fullest bin holds over 50 times the emptiest bar's count.
    """
    bars = [count for count in (*counts, *highlighted) if count > 0]
    most = max(bars, default=1)
    if is_log is None:
        is_log = most > _LOG_FROM_RATIO * min(bars, default=1)
    ticks = _count_ticks(most, is_log=is_log)
    span = (_LOG_FLOOR if is_log else 0.0, max(float(most), ticks[-1]))
    scale = _log_span(span) if is_log else span
    xs, ys = (_LEFT, _WIDTH - _RIGHT), (_HEIGHT - _BOTTOM, _TOP)

    def height_of(count: float) -> float:
        return _place(math.log10(count) if is_log else count, scale, ys)

    y_name = "examples (log scale)" if is_log else "examples"
    body = [_y_axis([(height_of(tick), f"{tick:,.0f}") for tick in ticks], y_name)]
    x_span = (float(edges[0]), float(edges[-1])) if edges else (0.0, 1.0)
    for i, count in enumerate(counts):
        if count < 1:
            continue
        left, right = (_place(float(edge), x_span, xs) for edge in edges[i : i + 2])
        text = f"{count:,} examples, {highlighted[i]:,} look wrong"
        body.append(f"<g><title>{edges[i]:.3g} to {edges[i + 1]:.3g}: {text}</title>")
        body.append(_bar(left, right, height_of(count), ys[0], "bar"))
        if highlighted[i] > 0:
            body.append(_bar(left, right, height_of(highlighted[i]), ys[0], "bar-issue"))
        body.append("</g>")
    steps = [step for step in _round_steps(*x_span) if x_span[0] <= step <= x_span[1]]
    body.append(_x_axis([(_place(step, x_span, xs), _short(step)) for step in steps], x_name))
    desc = f"{sum(counts):,} examples, of which {sum(highlighted):,} look wrong"
    return _svg("".join(body), title=title, desc=desc)


def _svg(
    body: str, *, title: str, desc: str, size: tuple[int, int] = (_WIDTH, _HEIGHT), kind: str = ""
) -> str:
    name = f"chart {kind}".strip()
    return (
        f'<svg class="{name}" viewBox="0 0 {size[0]} {size[1]}" role="img">'
        f"<title>{escape(title)}</title><desc>{escape(desc)}</desc>{body}</svg>"
    )


def _n(value: float) -> str:
    """A coordinate with at most two decimals."""
    return f"{value:.2f}".rstrip("0").rstrip(".")


def _short(value: float) -> str:
    """A tick label: -0 is 0, and float noise is cut."""
    return f"{value + 0.0:.4g}"


def _place(value: float, span: tuple[float, float], frame: tuple[float, float]) -> float:
    """`value` of `span` carried over to `frame`; the middle of it where the span is empty."""
    share = (value - span[0]) / (span[1] - span[0]) if span[1] > span[0] else 0.5
    return frame[0] + share * (frame[1] - frame[0])


def _points(
    values: Sequence[float | None],
    xs: tuple[float, float],
    ys: tuple[float, float],
    span: tuple[float, float],
) -> list[tuple[float, float] | None]:
    last = max(len(values) - 1, 1)
    return [
        None
        if value is None or not math.isfinite(value)
        else (_place(i, (0, last), xs), _place(min(max(value, span[0]), span[1]), span, ys))
        for i, value in enumerate(values)
    ]


def _curve(points: Iterable[tuple[float, float] | None], name: str) -> str:
    """Polylines between the gaps; dots for single points."""
    runs: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            runs.append([])
        else:
            runs[-1].append(point)
    shapes = []
    for run in runs:
        if len(run) == 1:
            shapes.append(
                f'<circle class="{name}-dot" cx="{_n(run[0][0])}" cy="{_n(run[0][1])}" r="2.5"/>'
            )
        elif run:
            path = " ".join(f"{_n(x)},{_n(y)}" for x, y in run)
            shapes.append(f'<polyline class="{name}" points="{path}"/>')
    return "".join(shapes)


def _bar(left: float, right: float, top: float, bottom: float, name: str) -> str:
    gap = min(1.0, (right - left) / 4)
    width, height = max(right - left - gap, 0.5), bottom - top
    return (
        f'<rect class="{name}" x="{_n(left)}" y="{_n(top)}" width="{_n(width)}" '
        f'height="{_n(height)}"/>'
    )


def _y_axis(ticks: Iterable[tuple[float, str]], name: str) -> str:
    right, middle = _WIDTH - _RIGHT, (_TOP + _HEIGHT - _BOTTOM) / 2
    marks = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{_n(y)}" y2="{_n(y)}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{_n(y + 3.5)}" text-anchor="end">'
        f"{escape(text)}</text>"
        for y, text in ticks
    )
    turn = f'transform="rotate(-90 10 {_n(middle)})"'
    return (
        f'{marks}<text class="axis" x="10" y="{_n(middle)}" text-anchor="middle" {turn}>'
        f"{escape(name)}</text>"
    )


def _x_axis(ticks: Iterable[tuple[float, str]], name: str) -> str:
    base, middle = _HEIGHT - _BOTTOM, (_LEFT + _WIDTH - _RIGHT) / 2
    marks = "".join(
        f'<text class="tick" x="{_n(x)}" y="{base + 15}" text-anchor="middle">{escape(text)}</text>'
        for x, text in ticks
    )
    line = f'<line class="base" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{base}" y2="{base}"/>'
    return (
        f'{line}{marks}<text class="axis" x="{_n(middle)}" y="{_HEIGHT - 6}" '
        f'text-anchor="middle">{escape(name)}</text>'
    )


def _round_steps(low: float, high: float, count: int = 5) -> list[float]:
    """About `count` round numbers (1, 2 or 5 times a power of ten) that cover low to high."""
    if not (math.isfinite(low) and math.isfinite(high)) or high <= low:
        return [low, low + 1.0] if math.isfinite(low) else [0.0, 1.0]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, last + 1)]


def _count_ticks(most: int, *, is_log: bool) -> list[float]:
    if is_log:
        return [10.0**power for power in range(math.floor(math.log10(most)) + 1)]
    return [step for step in _round_steps(0, most, 4) if step == int(step)]


def _log_span(span: tuple[float, float]) -> tuple[float, float]:
    return math.log10(span[0]), math.log10(span[1])
