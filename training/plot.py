"""Draws `curves.svg` from `curves.csv`: `python -m training.plot`."""

from __future__ import annotations

import math
from pathlib import Path

from .curves import CURVES, Row, read_curves
from .data.example import CHAT_TASKS

PICTURE = Path(__file__).with_name("curves.svg")
LEFT, RIGHT, TOP, PANEL, GAP, WIDTH = 48, 96, 36, 210, 34, 960
LOWEST, HIGHEST = 0.02, 8.0  # nats, on a logarithmic axis
TICKS = (0.03, 0.1, 0.3, 1, 3)
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
PANELS = (("both passes", ("causal", "diffusion")), ("denoising pass, by task", CHAT_TASKS))


def draw(stages: dict[str, list[Row]]) -> str:
    """The picture as SVG: a panel for the two passes and one for the tasks, over the steps of all stages in a row."""
    steps = sum(rows[-1]["step"] for rows in stages.values())
    height = TOP + len(PANELS) * (PANEL + GAP) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}">',
        '<g font-family="sans-serif" font-size="11">',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="{LEFT}" y="14">Loss in nats per token; the numbers are the stages</text>',
    ]
    scale = (WIDTH - LEFT - RIGHT) / steps
    for number, (title, names) in enumerate(PANELS):
        top = TOP + number * (PANEL + GAP)
        parts += _frame(stages, scale, top, title, number == 0)
        for colour, name in zip(COLOURS[2 * number :], names, strict=False):
            parts += _curve(stages, scale, top, name, colour)
        parts += _legend(top, names, COLOURS[2 * number :])
    parts.append(f'<text x="{LEFT}" y="{height - 6}">{steps:,.0f} steps in all</text>')
    return "\n".join([*parts, "</g></svg>"]) + "\n"


def _frame(stages: dict[str, list[Row]], scale: float, top: int, title: str, numbered: bool) -> list[str]:
    """A panel's title, its stages in two shades, and its axis."""
    parts, x = [], float(LEFT)
    for number, rows in enumerate(stages.values(), 1):
        width = rows[-1]["step"] * scale
        shade = "#f4f4f4" if number % 2 else "#e8e8e8"
        parts.append(f'<rect x="{x:.1f}" y="{top}" width="{width:.1f}" height="{PANEL}" fill="{shade}"/>')
        if numbered:
            parts.append(f'<text x="{x + width / 2:.1f}" y="{top - 5}" text-anchor="middle">{number}</text>')
        x += width
    for tick in TICKS:
        y = _height(top, tick)
        parts.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#fff"/>')
        parts.append(f'<text x="{LEFT - 5}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    return [*parts, f'<text x="{LEFT + 5}" y="{top + PANEL - 6}" fill="#666">{title}</text>']


def _curve(stages: dict[str, list[Row]], scale: float, top: int, name: str, colour: str) -> list[str]:
    """One line for each run of measured values in each stage."""
    lines: list[list[str]] = []
    begin = float(LEFT)
    for rows in stages.values():
        lines.append([])
        for row in rows:
            if row[name] is None:
                lines.append([])
                continue
            lines[-1].append(f"{begin + row['step'] * scale:.1f} {_height(top, row[name]):.1f}")
        begin += rows[-1]["step"] * scale
    path = "".join("M" + "L".join(points) for points in lines if len(points) > 1)
    return [f'<path d="{path}" fill="none" stroke="{colour}"/>']


def _legend(top: int, names: tuple[str, ...], colours: tuple[str, ...]) -> list[str]:
    x = WIDTH - RIGHT + 8
    entries = zip(names, colours, strict=False)
    return [
        f'<text x="{x}" y="{top + 14 + 16 * place}" fill="{colour}">{name}</text>'
        for place, (name, colour) in enumerate(entries)
    ]


def _height(top: int, value: float) -> float:
    share = math.log(min(max(value, LOWEST), HIGHEST) / LOWEST) / math.log(HIGHEST / LOWEST)
    return top + PANEL * (1 - share)


if __name__ == "__main__":
    PICTURE.write_text(draw(read_curves(CURVES)), encoding="utf-8")
