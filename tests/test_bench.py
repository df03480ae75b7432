"""The benchmarks run: what they measure is the real command against a real backend."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parent.parent / "bench"


@pytest.mark.long
def test_one_round_of_the_send_benchmark_prints_every_figure_and_ratio(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, BENCH / "send.py", "--rounds", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = [re.sub(r"[\d.]+", "N", re.sub(r"  +", "  ", line)) for line in done.stdout.splitlines()]
    [kept] = [place for place, row in enumerate(rows) if row.startswith("at most N times the imports")]
    assert rows[kept + 1 : -1] == [
        "heartbeat run -- true, less true  N ms  N ms",
        "the same : heartbeat send  N  N",
    ]
    assert re.fullmatch(r"at most N times a send: (kept|exceeded)", rows[-1])
    rows = rows[: kept + 1]
    assert rows[:-1] == [
        "median of N fresh processes each  wall  CPU",
        "imports  N ms  N ms",
        "barest send  N ms  N ms",
        "heartbeat send  N ms  N ms",
        "heartbeat send : imports  N  N",
        "heartbeat send : barest send  N  N",
    ]
    assert re.fullmatch(r"at most N times the imports: (kept|exceeded)", rows[-1])
