"""A trace as one HTML file with plots that needs nothing else: plotly draws, and is inside."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any, Final, TextIO

from ...layers.trace import Event
from ..status import CommandError, Status
from .summary import BINS, Summary, summarized
from .text import line, outcome

_PATHS: Final = 25
_REQUESTS: Final = 20
"""Requests that are followed from layer to layer: the slowest."""
_LABEL_MAX: Final = 80

_HEAD: Final = """\
<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>
body {{ font-family: system-ui, sans-serif; margin: 1.5em auto; max-width: 75em; }}
table {{ border-collapse: collapse; }} td, th {{ padding: 0.15em 0.8em; text-align: right; }}
td:first-child, th:first-child {{ text-align: left; }} tr:nth-child(even) {{ background: #f3f5f8; }}
pre {{ overflow-x: auto; font-size: 85%; }} h2 {{ border-top: 1px solid #ccc; padding-top: 1em; }}
</style><script>{plotly}</script></head><body><h1>{title}</h1>
"""


def write_report(events: Iterable[Event], title: str, out: TextIO) -> None:
    """Write the report. Errors: CommandError when plotly is not there."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise CommandError(
            Status.FAILURE, "reports need plotly: pip install 'syspuffs[report]'"
        ) from None
    found = sorted(events, key=lambda event: event.start)
    out.write(_HEAD.format(title=html.escape(title), plotly=get_plotlyjs()))
    summaries = summarized(found)
    if not summaries:
        out.write("<p>There is nothing in it.</p>")
    for number, summary in enumerate(summaries):
        out.write(f"<h2>Layer {html.escape(summary.title)}</h2>\n{_table(summary)}\n")
        for place, figure in enumerate(_figures(summary)):
            ident = f"plot-{number}-{place}"
            out.write(figure.to_html(full_html=False, include_plotlyjs=False, div_id=ident))
        slow = "\n".join(line(event) for event in summary.slowest)
        out.write(f"<h3>Slowest</h3><pre>{html.escape(slow)}</pre>\n")
    if len(summaries) > 1:
        out.write(_followed(found))
    out.write("</body></html>\n")


def _table(summary: Summary) -> str:
    rows = ["<tr><th>operation<th>count<th>total, s<th>p50, ms<th>p90<th>p99<th>longest<th>failed"]
    for name, sample in sorted(summary.durations.items(), key=lambda item: -item[1].total):
        failed = sum(count for (what, _), count in summary.errors.items() if what == name)
        cells = [name, sample.count, f"{sample.total / 1e9:.3f}"]
        cells += [f"{sample.percentile(p) / 1e6:.3f}" for p in (50, 90, 99, 100)]
        rows.append("<tr>" + "".join(f"<td>{cell}" for cell in (*cells, failed)))
    return "<table>" + "\n".join(rows) + "</table>"


def _figures(summary: Summary) -> list[Any]:
    import plotly.graph_objects as go

    width = (summary.end - summary.begin) / BINS / 1e9 or 1e-9
    times = [number * width for number in range(BINS)]

    def over_time(what: str, unit: str, series: dict[str, list[int]], scale: float) -> Any:
        bars = [
            go.Bar(x=times, y=[value * scale for value in values], name=name)
            for name, values in sorted(series.items())
        ]
        return _laid_out(go.Figure(bars), what, "seconds", unit, barmode="stack", bargap=0)

    figures = [over_time("Operations over time", "a second", summary.operations, 1 / width)]
    if summary.octets:
        figures.append(over_time("Octets", "MB a second", summary.octets, 1e-6 / width))
    flight = go.Scatter(x=times, y=summary.in_flight, line={"shape": "hv"})
    figures.append(
        _laid_out(go.Figure([flight]), "Requests in flight, at most", "seconds", "requests")
    )
    lines = []
    for name, sample in sorted(summary.durations.items()):
        steps = sample.histogram()
        x, y = [ns / 1e6 for ns, _ in steps], [100 * share for _, share in steps]
        lines.append(go.Scatter(x=x, y=y, name=name, line={"shape": "hvh"}))
    figure = _laid_out(go.Figure(lines), "Latency", "ms", "% of the operation")
    figures.append(figure.update_xaxes(type="log"))
    busiest = summary.paths.most_common(_PATHS)[::-1]
    bars = go.Bar(
        y=[_label(path) for path, _ in busiest], x=[n for _, n in busiest], orientation="h"
    )
    figures.append(_laid_out(go.Figure([bars]), "Busiest paths", "operations", "", height=600))
    if summary.errors:
        names = [f"{name} {code}" for name, code in summary.errors]
        bars = go.Bar(x=names, y=list(summary.errors.values()))
        figures.append(_laid_out(go.Figure([bars]), "Errors", "", "operations"))
    if summary.orders:
        kinds = [
            go.Bar(
                x=list(summary.orders),
                y=[order[kind] for order in summary.orders.values()],
                name=kind,
            )
            for kind in ("sequential", "random")
        ]
        what = "Sequential and random transfers"
        figures.append(_laid_out(go.Figure(kinds), what, "", "operations", barmode="stack"))
    return figures


def _laid_out(figure: Any, title: str, x: str, y: str, **words: Any) -> Any:
    words = {"height": 340, "margin": {"t": 50, "b": 40}, **words}
    return figure.update_layout(title=title, xaxis_title=x, yaxis_title=y, **words)


def _label(path: bytes) -> str:
    """Return a path as plotly shows it as it is: it takes tags for tags."""
    text = path.decode("utf-8", "backslashreplace")
    if len(text) > _LABEL_MAX:
        text = "..." + text[3 - _LABEL_MAX :]
    return html.escape("".join(c if c.isprintable() else "?" for c in text), quote=False)


def _followed(events: Sequence[Event]) -> str:
    """Show the slowest requests of the top with what was done for them below."""
    below: dict[tuple[int, int], list[Event]] = {}
    for event in events:
        if event.parent:
            below.setdefault((event.info.pid, event.parent), []).append(event)
    tops = [event for event in events if not event.parent and (event.info.pid, event.id) in below]
    lines = []
    for top in sorted(tops, key=lambda event: -event.duration)[:_REQUESTS]:
        waiting = [(top, 0)]
        while waiting:
            event, depth = waiting.pop()
            path = event.path.decode("utf-8", "backslashreplace")
            lines.append(
                f"{event.duration / 1e6:10.3f} ms  +{(event.start - top.start) / 1e6:.3f}  "
                f"{'  ' * depth}{event.layer}: {event.name} {path} = {outcome(event)}"
            )
            found = below.get((event.info.pid, event.id), ())
            waiting += [(one, depth + 1) for one in reversed(found) if depth < 16]
    text = html.escape("\n".join(lines))
    return f"<h2>From layer to layer: the slowest requests</h2><pre>{text}</pre>\n"
