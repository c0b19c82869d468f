"""The report: one HTML file with its figures inside, that any browser shows without the network."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Sequence

from depth_pose_ros import __version__
from depth_pose_ros.evaluation import figures
from depth_pose_ros.evaluation.evaluate import tables, text
from depth_pose_ros.evaluation.evaluation import Evaluation

STYLE = """
:root { --ink: #1f2933; --muted: #616e7c; --line: #e4e7eb; --mark: #d1495b; }
body { font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; color: var(--ink);
  max-width: 1080px; margin: 2.5rem auto; padding: 0 1.5rem; background: white; }
h1 { font-size: 1.7rem; margin: 0; } h2 { font-size: 1.2rem; margin: 2.6rem 0 .6rem; }
h3 { font-size: .95rem; margin: 1.4rem 0 .3rem; color: var(--muted); font-weight: 600; }
.sub { color: var(--muted); margin: .2rem 0 1.4rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: .8rem; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .7rem .9rem; }
.card b { display: block; font-size: 1.35rem; font-variant-numeric: tabular-nums; }
.card span { color: var(--muted); font-size: .85rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; margin: .2rem 0 1rem; }
th, td { padding: .28rem .9rem; text-align: right; border-bottom: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; padding-left: 0; } th { color: var(--muted); font-weight: 600; }
.wide { overflow-x: auto; }
img { width: 100%; height: auto; } ul { padding-left: 1.2rem; }
footer { color: var(--muted); font-size: .85rem; margin: 3rem 0 1rem; border-top: 1px solid var(--line); }
@media print { h2 { break-after: avoid; } img, table { break-inside: avoid; } }
"""


def report(evaluations: Sequence[Evaluation], names: Sequence[str] = (), side_by_side: list[list[str]] = ()) -> str:
    """The page of one run, or with ``side_by_side`` (a table, headings first) of several."""
    names = list(names) or [evaluation.record.name for evaluation in evaluations]
    if len(evaluations) == 1 and not side_by_side:
        body, title = _single(evaluations[0]), names[0]
    else:
        body, title = _several(evaluations, names, side_by_side), "Comparison of " + ", ".join(names)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}</style></head>\n<body>\n'
        f"<h1>{html.escape(title)}</h1>\n{body}\n<footer><p>depth_pose_ros {__version__}. ATE and RPE by evo; "
        "t_rel and r_rel as the KITTI odometry benchmark defines them; depth errors after Eigen et al. 2014; Fl as "
        "KITTI 2015 defines it.</p></footer>\n</body></html>\n"
    )


def _single(evaluation: Evaluation) -> str:
    record, found = evaluation.record, tables(evaluation)
    frames = len(record.estimate)
    parts = []
    if frames > 1:
        seconds = float(record.seconds[-1])
        unit = "m" if record.metric else "units, not metric"
        source = record.rows[-1]["scale_source"] if record.rows else ""
        told = f"{frames} frames in {seconds:.1f} s; path {record.estimate.length:.2f} {unit}"
        parts.append(f'<p class="sub">{told}{f"; scale source {html.escape(source)}" if source else ""}</p>')
    parts.append(_cards(evaluation))
    parts.append(_notes(evaluation.notes))
    if frames > 1:
        parts += ["<h2>Trajectory</h2>", _svg(figures.trajectory([evaluation], [record.name]), "the path")]
        parts += [_table(t, rows) for t, rows in found.items() if not t.startswith(("Depth", "Optical"))]
        if evaluation.kitti:
            parts.append(_svg(figures.kitti(evaluation), "KITTI errors by sub-length"))
    if evaluation.relative is not None:
        parts += ["<h2>Error over time</h2>", _svg(figures.errors([evaluation], [record.name]), "errors over time")]
        if (picture := figures.scale([evaluation], [record.name])) is not None:
            parts += ["<h2>Scale over time</h2>", _svg(picture, "scale over time")]
    if len(record.rows) > 1:
        parts += ["<h2>States and matches</h2>", _svg(figures.states(record), "states over time")]
        reasons = {f"{row['state']}: {row['reason']}" for row in record.rows if row.get("reason")}
        parts.append(_notes(sorted(reasons)[:8]))
        parts += ["<h2>Time</h2>", _svg(figures.stages(record), "time of each stage")]
    if evaluation.depth:
        parts.append("<h2>Depth</h2>")
        if evaluation.strips:
            caption = "Estimated depth after median scaling, true depth, and the error relative to it."
            parts += [_jpeg(figures.depth_strips(evaluation.strips), "depth strips"), f"<p>{caption}</p>"]
        parts += [_table(title, rows) for title, rows in found.items() if title.startswith("Depth")]
    if evaluation.flow:
        parts.append("<h2>Optical flow</h2>")
        parts += [_table(title, rows) for title, rows in found.items() if title.startswith("Optical")]
    return "\n".join(parts)


def _several(evaluations: Sequence[Evaluation], names: Sequence[str], side_by_side: list[list[str]]) -> str:
    whose: dict[str, list[str]] = {}
    for evaluation, name in zip(evaluations, names):
        for note in evaluation.notes:
            whose.setdefault(note, []).append(name)
    notes = [note if len(n) == len(names) else f"{', '.join(n)}: {note}" for note, n in whose.items()]
    parts = [_table("Side by side", side_by_side), _notes(notes)]
    parts += ["<h2>Trajectories</h2>", _svg(figures.trajectory(evaluations, names), "the paths")]
    parts += ["<h2>Error over time</h2>", _svg(figures.errors(evaluations, names), "errors over time")]
    if (picture := figures.scale(evaluations, names)) is not None:
        parts += ["<h2>Scale over time</h2>", _svg(picture, "scale over time")]
    for evaluation, name in zip(evaluations, names):
        parts.append(f"<h2>{html.escape(name)}</h2>")
        parts += [_table(title, rows) for title, rows in tables(evaluation).items()]
        if len(evaluation.record.rows) > 1:
            parts += [
                _svg(figures.states(evaluation.record), "states"),
                _svg(figures.stages(evaluation.record), "time"),
            ]
    return "\n".join(parts)


def _cards(evaluation: Evaluation) -> str:
    """What people ask first."""
    record, cards = evaluation.record, []
    if record.rows:
        good = sum(record.states.get(state, 0) for state in ("tracking", "stationary"))
        cards.append((f"{100 * good / max(len(record.rows) - 1, 1):.0f} %", "of the frames after the first tracked"))
    name = "se3" if record.metric else "sim3"
    if name in evaluation.aligned:
        errors, length = evaluation.aligned[name], evaluation.motion.true_length
        share = f", {100 * errors.ate / length:.2f} % of {length:.1f} m" if length > 0.1 else ""
        cards.append((f"{text(errors.ate)} m", f"ATE after {'SE(3)' if record.metric else 'Sim(3)'}{share}"))
    if evaluation.kitti:
        how = " after scaling" if evaluation.kitti.scaled else ""
        cards.append((f"{text(evaluation.kitti.t_rel)} %", f"t_rel{how}"))
        cards.append((f"{text(evaluation.kitti.r_rel)}", "r_rel [deg per 100 m]"))
    if evaluation.motion:
        cards.append((f"{text(evaluation.motion.rotation)} deg", "rotation, frame to frame, median"))
        if math.isfinite(evaluation.motion.direction):
            cards.append((f"{text(evaluation.motion.direction)} deg", "direction, frame to frame, median"))
            cards.append((f"{100 * evaluation.motion.scale_spread:.1f} %", "spread of the scale, motion to motion"))
    if evaluation.depth:
        cards.append((text(evaluation.depth["median scaled"].abs_rel), "AbsRel of depth, median scaled"))
    if evaluation.flow:
        cards.append((f"{text(evaluation.flow.epe)} px", "end-point error of flow"))
    if record.rows:
        cards.append((f"{text(evaluation.numbers()['total_median_ms'])} ms", "per frame, median"))
    return (
        '<div class="cards">'
        + "".join(f'<div class="card"><b>{b}</b><span>{s}</span></div>' for b, s in cards)
        + "</div>"
    )


def _notes(notes: Sequence[str]) -> str:
    return "<ul>" + "".join(f"<li>{html.escape(note)}</li>" for note in notes) + "</ul>" if notes else ""


def _table(title: str, rows: list[list[str]]) -> str:
    head, *body = ([html.escape(cell) for cell in row] for row in rows)
    lines = ["<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in body]
    header = "<tr>" + "".join(f"<th>{cell}</th>" for cell in head) + "</tr>"
    return f'<h3>{html.escape(title)}</h3><div class="wide"><table>{header}{"".join(lines)}</table></div>'


def _svg(figure, name: str) -> str:
    return _image("svg+xml", figures.svg(figure), name)


def _jpeg(figure, name: str) -> str:
    return _image("jpeg", figures.jpeg(figure), name)


def _image(kind: str, data: bytes, name: str) -> str:
    return f'<img alt="{name}" src="data:image/{kind};base64,{base64.b64encode(data).decode("ascii")}">'
