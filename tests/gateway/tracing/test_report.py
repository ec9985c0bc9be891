"""The HTML report: what it sums up, that names do no harm to it, and how a browser shows it."""

from __future__ import annotations

import errno
import io
import json
import re
import subprocess
from itertools import pairwise
from pathlib import Path

import pytest

from syspuffs.emul.tmpfs import TmpFs
from syspuffs.gateway.tracing.chrome import write_chrome
from syspuffs.gateway.tracing.report import write_report
from syspuffs.gateway.tracing.summary import BINS, summarized
from syspuffs.layers.p2k import p2k_over
from syspuffs.layers.puffs import puffs_over
from syspuffs.layers.trace import events, traced
from syspuffs.native.constants import NameiOp, Vtype
from syspuffs.native.errors import VfsError
from syspuffs.native.records import Cred, Vattr, lookup_cn

CRED = Cred(0, 0, (), 1)
FILE = Vattr(Vtype.VREG, 0o644)
EVIL = b'<script>document.title = "evil"<&script>'


async def record(file: Path) -> None:
    """Two layers of a stack; names that are HTML, failures, data in order and out of order."""
    async with (
        p2k_over(TmpFs(mntfromname=b"none")) as bottom,
        traced(bottom, file) as lower,
        puffs_over(lower) as fs,
        p2k_over(fs) as kernel,
        traced(kernel, file) as server,
    ):
        root = server.kargs.root.cookie
        made = await server.create(root, lookup_cn(EVIL, CRED, NameiOp.CREATE), FILE)
        for number in range(20):
            await server.write(made.cookie, number * 1000, bytes(1000), 0, CRED)
        for number in (5, 3, 9):
            await server.read(made.cookie, number * 1000, 1000, 0, CRED)
        for _ in range(3):
            with pytest.raises(VfsError):
                await server.create(root, lookup_cn(EVIL, CRED, NameiOp.CREATE), FILE)
        server.reclaim(made.cookie, 1)
        await server.unmount(0)


async def test_sums_up(tmp_path: Path) -> None:
    await record(tmp_path / "t")
    lower, upper = summarized(list(events(tmp_path / "t")))
    assert upper.title == "1: trace|p2k|puffs|trace|p2k|tmpfs"
    assert upper.errors["create", errno.errorcode[errno.EEXIST]] == 3
    assert upper.orders["write"] == {"sequential": 20}
    assert upper.orders["read"] == {"random": 3}
    assert sum(upper.octets["write"]) == 20_000
    assert sum(map(sum, upper.operations.values())) == sum(
        s.count for s in upper.durations.values()
    )
    assert max(upper.in_flight) == 1
    assert len(upper.in_flight) == BINS
    assert upper.paths[b"/" + EVIL] == 28
    sample = upper.durations["write"]
    assert sample.percentile(50) <= sample.percentile(99) <= max(sample.values)
    assert abs(sum(share for _, share in sample.histogram()) - 1) < 1e-9
    assert sum(lower.octets["write"]) == 20_000


def test_nothing(tmp_path: Path) -> None:
    with open(tmp_path / "html", "w") as out:
        write_report([], "nothing", out)
    assert "There is nothing in it" in (tmp_path / "html").read_text()


async def test_chrome_has_the_form_that_perfetto_reads(tmp_path: Path) -> None:
    """The Trace Event Format: what each phase must have, slices that nest, arrows that land."""
    await record(tmp_path / "t")
    found = list(events(tmp_path / "t"))
    told = io.StringIO()
    assert write_chrome(found, told) == len(found)
    read = json.loads(told.getvalue())
    assert read.keys() == {"displayTimeUnit", "traceEvents"}
    slices: dict[tuple[int, int], list[tuple[float, float]]] = {}
    flows: dict[int, dict[str, dict[str, object]]] = {}
    named = set()
    for event in read["traceEvents"]:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert (event["name"], set(event["args"])) == ("process_name", {"name"})
            named.add(event["pid"])
            continue
        assert event["pid"] in named
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
            ends = (event["ts"], event["ts"] + event["dur"])
            slices.setdefault((event["pid"], event["tid"]), []).append(ends)
        else:
            assert event["ph"] == "s" or (event["ph"], event["bp"]) == ("f", "e")
            flows.setdefault(event["id"], {})[event["ph"]] = event
    for spans in slices.values():  # on one thread nothing overlaps
        assert all(a[1] <= b[0] + 0.001 for a, b in pairwise(sorted(spans)))
    assert len(flows) == sum(bool(event.parent) for event in found) > 20
    for flow in flows.values():
        assert flow.keys() == {"s", "f"}
        assert flow["s"]["pid"] != flow["f"]["pid"]
        for end in flow.values():  # it binds to the slice that is there then
            place = (end["pid"], end["tid"])
            assert any(a <= end["ts"] <= b for a, b in slices[place])  # type: ignore[index,operator]


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.programs(chromium="chromium")
async def test_in_a_browser(tmp_path: Path) -> None:
    """Every plot is drawn, nothing is fetched, and no name of a file is taken for more."""
    await record(tmp_path / "t")
    page = tmp_path / "report.html"
    with open(page, "w") as out:
        write_report(events(tmp_path / "t"), "t", out)
    assert EVIL.decode() not in page.read_text()
    picture = tmp_path / "report.png"
    browser = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--no-first-run",
        "--disable-extensions",
        "--disable-background-networking",
        "--window-size=1200,6000",
        "--virtual-time-budget=5000",
        f"--user-data-dir={tmp_path / 'profile'}",
        f"--screenshot={picture}",
        "--dump-dom",
        f"file://{page}",
    ]
    done = subprocess.run(browser, capture_output=True, check=True, timeout=240)
    shown = done.stdout.decode()
    assert "<title>t</title>" in shown
    plots = set(re.findall(r'id="(plot-\d+-\d+)"', shown))
    assert len(plots) == 14
    for title in ("Requests in flight", "Sequential and random transfers", "From layer to layer"):
        assert title in shown
    followed = shown.partition("From layer to layer")[2]
    one = re.search(r"  1: (create|write|read) .*\n.*    0: \1 ", followed)
    assert one, "no request is followed from layer 1 to layer 0"
    drawn = shown.count('class="main-svg"')
    assert drawn >= 2 * len(plots)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 50_000
