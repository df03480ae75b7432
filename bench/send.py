"""What a cold `heartbeat send` costs, and what `heartbeat run` adds to a command: wall and CPU time of fresh
processes, beside yardsticks.

    python bench/send.py [--rounds N] [--check]

All in one run, in turns, against a real local backend that the run starts and ends. The ratios carry over
to other machines, the milliseconds do not. bench/README.md says more.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from heartbeat_cli import client
from heartbeat_cli.deadline import Deadline
from heartbeat_cli.engine import find_node

BENCH = Path(__file__).parent
REPOSITORY = BENCH.parent
AGENT = "hint"
ROUNDS = 31  # medians of fewer wander by several per cent on a busy machine
WARM_UP_ROUNDS = 2  # the first process of each kind reads its files from disk and writes its .pyc
LIMIT = 1.3  # times the imports, in wall and in CPU time: what is ours to spend on checks, deadline and log
RUN_LIMIT = 1.3  # times a send, for both heartbeats of a run: its imports are paid once
NOTHING, SEND, RUN = "true", "heartbeat send", "heartbeat run -- true"
SETUP_WITHIN_S = 30  # bundling the functions and starting included


@dataclass(frozen=True)
class Cost:
    """One process, in ms: from its start to its end, and of CPU, its own and the system's for it."""

    wall: float
    cpu: float


def measure(command: Sequence[str | Path], env: dict[str, str], cwd: Path) -> Cost:
    """Run a command to its end; SystemExit with what it said when it fails."""
    with tempfile.TemporaryFile() as said:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, env=env, cwd=cwd, stdin=subprocess.DEVNULL, stdout=said, stderr=said
        )
        _, status, usage = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            text = said.read().decode(errors="replace")
            sys.exit(f"{' '.join(map(str, command))} failed with {process.returncode}:\n{text}")
    return Cost(wall * 1000, (usage.ru_utime + usage.ru_stime) * 1000)


@contextmanager
def local_backend(folder: Path) -> Iterator[tuple[str, str]]:
    """A fresh local backend with our functions; its address, and a token that may register and send."""
    key_file = folder / "admin-key"
    command = [find_node(os.environ), REPOSITORY / "backend" / "main.ts"]
    options = {"functions": REPOSITORY / "convex", "data": folder / "db", "admin-key-file": key_file}
    places = [word for name, value in options.items() for word in (f"--{name}", value)]
    process = subprocess.Popen(
        [*command, *places, "--port", "0", "--site-port", "0"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            sys.exit("the local backend did not start")
        url = json.loads(line)["url"]
        token = secrets.token_hex(32)
        digest = hashlib.sha256(token.encode()).hexdigest()
        first = {"tokenHash": digest, "name": "bench", "scope": "admin"}
        deadline = Deadline(SETUP_WITHIN_S)
        client.run_admin(
            url, key_file.read_text().strip(), "heartbeat/setup:storeFirstToken", {"request": first}, deadline
        )
        agent = {"agent": AGENT, "schedule": {"kind": "cron", "expression": "0 */6 * * *", "timeZone": "UTC"}}
        with client.Connection(url, token, deadline=deadline, transport="http") as connection:
            connection.mutation("mutations/applySchedule", "schedule", {"source": "bench", "agents": [agent]})
        yield url, token
    finally:
        process.terminate()
        process.wait()


def report(costs: dict[str, list[Cost]]) -> bool:
    """Print the table, ours being the last row; whether it keeps to the limit against the first."""
    middle = {
        name: Cost(median(cost.wall for cost in runs), median(cost.cpu for cost in runs))
        for name, runs in costs.items()
    }
    *yardsticks, ours = middle
    print(f"{f'median of {len(costs[ours])} fresh processes each':38} {'wall':>9} {'CPU':>9}")
    for name, cost in middle.items():
        print(f"{name:38} {cost.wall:6.1f} ms {cost.cpu:6.1f} ms")
    for name in yardsticks:
        wall, cpu = middle[ours].wall / middle[name].wall, middle[ours].cpu / middle[name].cpu
        print(f"{f'{ours} : {name}':38} {wall:9.2f} {cpu:9.2f}")
    imports = middle[yardsticks[0]]
    kept = middle[ours].wall <= LIMIT * imports.wall and middle[ours].cpu <= LIMIT * imports.cpu
    print(f"at most {LIMIT} times the {yardsticks[0]}: {'kept' if kept else 'exceeded'}")
    return kept


def report_run(costs: dict[str, list[Cost]]) -> bool:
    """Print what a wrapped command that does nothing costs more than the command; whether that is little."""
    added, send = (
        Cost(
            median(cost.wall for cost in costs[name]) - less * median(cost.wall for cost in costs[NOTHING]),
            median(cost.cpu for cost in costs[name]) - less * median(cost.cpu for cost in costs[NOTHING]),
        )
        for name, less in ((RUN, 1), (SEND, 0))
    )
    print(f"{f'{RUN}, less {NOTHING}':38} {added.wall:6.1f} ms {added.cpu:6.1f} ms")
    wall, cpu = added.wall / send.wall, added.cpu / send.cpu
    print(f"{f'the same : {SEND}':38} {wall:9.2f} {cpu:9.2f}")
    kept = wall <= RUN_LIMIT and cpu <= RUN_LIMIT
    print(f"at most {RUN_LIMIT} times a send: {'kept' if kept else 'exceeded'}")
    return kept


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure a cold `heartbeat send` and `heartbeat run`.")
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help=f"processes of each kind (default {ROUNDS})"
    )
    parser.add_argument("--check", action="store_true", help="exit 1 when the limit is exceeded")
    options = parser.parse_args()

    python = sys.executable
    heartbeat = Path(python).with_name("heartbeat")
    commands: dict[str, list[str | Path]] = {
        "imports": [python, BENCH / "imports_only.py"],
        "barest send": [python, BENCH / "barest_send.py", AGENT],
        SEND: [heartbeat, "send", AGENT],
        NOTHING: ["true"],
        RUN: [heartbeat, "run", AGENT, "--", "true"],
    }
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    with tempfile.TemporaryDirectory() as name, local_backend(Path(name)) as (url, token):
        home = Path(name) / "home"
        home.mkdir()
        env = {"PATH": os.environ["PATH"], "HOME": str(home), "HEARTBEAT_HOME": str(home)}
        env |= {"HEARTBEAT_URL": url, "HEARTBEAT_TOKEN": token}
        for round_number in range(WARM_UP_ROUNDS + options.rounds):
            for kind, command in commands.items():
                cost = measure(command, env, home)
                if round_number >= WARM_UP_ROUNDS:
                    costs[kind].append(cost)
    kept = report({name: costs[name] for name in list(commands)[:3]})
    kept = report_run(costs) and kept
    return 0 if kept or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
