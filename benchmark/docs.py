"""docs/performance.md and its charts from the committed results in benchmark/results/.

A table stands between ``<!-- benchmark: PART -->`` and ``<!-- end of benchmark -->``.
"""

from __future__ import annotations

import re
from pathlib import Path

from benchmark.result import RESULTS, ROOT, markdown, read
from depth_pose_ros.evaluation.files import write_text

PAGE = ROOT / "docs" / "performance.md"
IMAGES = ROOT / "docs" / "images"
PLACE = re.compile(r"(<!-- benchmark: (\w+) -->\n).*?(<!-- end of benchmark -->)", re.DOTALL)


def updated(text: str, results: Path = RESULTS) -> str:
    """``text`` with the tables of every part whose result there is."""

    def table(match: re.Match) -> str:
        document = read(results, match[2])
        return f"{match[1]}\n{markdown(document)}\n{match[3]}" if document else match[0]

    return PLACE.sub(table, text)


def write() -> list[Path]:
    """Write the page and draw the charts; what was written."""
    from benchmark import chart

    write_text(PAGE, updated(PAGE.read_text(encoding="utf-8")))
    written = [PAGE]
    if stages := read(RESULTS, "stages"):
        written.append(IMAGES / "stages.svg")
        chart.stages_chart(written[-1], stages)
    if covariance := read(RESULTS, "covariance"):
        written.append(IMAGES / "covariance.svg")
        chart.covariance_chart(written[-1], covariance)
    sustained, table = read(RESULTS, "sustained"), RESULTS / "sustained.csv"
    if sustained and table.is_file():
        written.append(IMAGES / "sustained.svg")
        chart.sustained_chart(written[-1], table, sustained)
    return written
