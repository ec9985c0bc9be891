"""The HTML report: what it sums up, that names do no harm to it, and how a browser shows it."""

from __future__ import annotations

import errno
import re
import subprocess
from pathlib import Path

import pytest

from syspuffs.emul.tmpfs import TmpFs
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


@pytest.mark.slow
@pytest.mark.programs(chromium="chromium")
async def test_in_a_browser(tmp_path: Path) -> None:
    """Every plot is drawn, nothing is fetched, and no name of a file is taken for more."""
    await record(tmp_path / "t")
    page = tmp_path / "report.html"
    with open(page, "w") as out:
        write_report(events(tmp_path / "t"), "t", out)
    assert EVIL.decode() not in page.read_text()
    browser = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1200,4000",
        "--virtual-time-budget=10000",
        f"--user-data-dir={tmp_path / 'profile'}",
    ]
    shown = subprocess.run(
        [*browser, "--dump-dom", f"file://{page}"], capture_output=True, check=True, timeout=60
    ).stdout.decode()
    assert "<title>t</title>" in shown
    plots = set(re.findall(r'id="(plot-\d+-\d+)"', shown))
    assert len(plots) == 14
    drawn = shown.count('class="main-svg"')
    assert drawn >= 2 * len(plots)
    picture = tmp_path / "report.png"
    subprocess.run(
        [*browser, f"--screenshot={picture}", f"file://{page}"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size > 50_000
