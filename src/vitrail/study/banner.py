"""The banner of a report: a small stained-glass window drawn from the study's digest.

seed -> jittered points -> Voronoi cells -> panes (SVG polygons) under lead lines
"""

import numpy as np

#: Jewel tones from night blue over ruby to amber, left to right.
TONES = ("#12355b", "#1f5fa8", "#2a9d8f", "#5b2a86", "#a4243b", "#d1495b", "#e08e1b", "#f2c14e")
WIDTH, HEIGHT = 1200, 116


def draw_banner(digest: str, columns: int = 26, rows: int = 3) -> str:
    """An inline ``<svg>`` of about ``columns * rows`` panes, the same for the same digest."""
    from scipy.spatial import Voronoi

    luck = np.random.default_rng(int(digest[:12] or "0", 16))
    steps = np.stack(np.meshgrid(np.arange(-2, columns + 2), np.arange(-2, rows + 2)), axis=-1)
    points = (steps.reshape(-1, 2) + luck.uniform(0.1, 0.9, (steps.size // 2, 2))) * [
        WIDTH / columns,
        HEIGHT / rows,
    ]
    cells = Voronoi(points)
    panes = []
    for place, region in zip(points, cells.point_region, strict=True):
        corners = cells.regions[region]
        inside = -60 < place[0] < WIDTH + 60 and -50 < place[1] < HEIGHT + 50
        if inside and corners and -1 not in corners:
            panes.append(_pane(cells.vertices[corners], _tone(place[0] / WIDTH, luck), luck))
    return (
        f'<svg class="glass" viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="xMidYMid slice" '
        f'aria-hidden="true"><g stroke="#14110f" stroke-width="3" stroke-linejoin="round">'
        f"{''.join(panes)}</g></svg>"
    )


def _tone(across: float, luck: np.random.Generator) -> str:
    """A tone near the place's own, so that the window runs from blue to amber with some play."""
    place = across * (len(TONES) - 1) + luck.normal(0, 0.9)
    return TONES[int(np.clip(round(place), 0, len(TONES) - 1))]


def _pane(corners: np.ndarray, tone: str, luck: np.random.Generator) -> str:
    points = " ".join(f"{x:.0f},{y:.0f}" for x, y in corners)
    return f'<polygon points="{points}" fill="{tone}" fill-opacity="{luck.uniform(0.72, 1):.2f}"/>'
