"""Bar charts as SVG, readable on light and dark pages."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

_COLORS = ("#8a8f98", "#c98a2b", "#5b7fb5", "#2e9e6b", "#a0559a")
_BAR, _GAP, _LEFT, _WIDTH, _TOP = 16, 22, 110, 420, 64


def bars(title: str, groups: Mapping[str, Mapping[str, float]], note: str) -> str:
    """Horizontal bars in groups, each with its number.

    Args:
        title: of the chart.
        groups: values by name, in groups by name. Every group has the same names.
        note: a line below the chart.
    """
    names = list(next(iter(groups.values())))
    most = max(value for group in groups.values() for value in group.values())
    parts, y = [], _TOP
    for number, name in enumerate(names):
        x = _LEFT + number * 105
        parts.append(f'<rect x="{x}" y="34" width="10" height="10" fill="{_COLORS[number]}"/>')
        parts.append(f'<text x="{x + 15}" y="43">{escape(name)}</text>')
    for group, values in groups.items():
        middle = y + _BAR * len(names) / 2 + 4
        parts.append(f'<text x="{_LEFT - 10}" y="{middle:.0f}" text-anchor="end">{escape(group)}</text>')
        for number, name in enumerate(names):
            width = _WIDTH * values[name] / most
            color = _COLORS[number]
            parts.append(f'<rect x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR - 3}" fill="{color}"/>')
            parts.append(f'<text x="{_LEFT + width + 6:.1f}" y="{y + 11}">{values[name]:.0f}</text>')
            y += _BAR
        y += _GAP
    described = "; ".join(
        f"{group}: " + ", ".join(f"{name} {value:.0f}" for name, value in values.items())
        for group, values in groups.items()
    )
    style = "text{font:12px sans-serif;fill:#24292f}@media(prefers-color-scheme:dark){text{fill:#e6edf3}}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_LEFT + _WIDTH + 60} {y + 10}" role="img">',
            f"<title>{escape(title)}</title><desc>{escape(described)}</desc><style>{style}</style>",
            f'<text x="{_LEFT}" y="20" style="font-weight:bold">{escape(title)}</text>',
            *parts,
            f'<text x="{_LEFT}" y="{y}" style="font-size:10px">{escape(note)}</text>',
            "</svg>\n",
        ]
    )
