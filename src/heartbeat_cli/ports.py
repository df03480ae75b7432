"""Who has a port of this machine: free, or taken by which process."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

LISTEN = "0A"  # the state in /proc/net/tcp, see proc_pid_net(5)
ANSWER_BYTES = 4_096  # of an answer to GET /instance_name: a status line, headers and one word
WORDS_SHOWN = 3  # of a command line: a program and what it runs; the rest may hold its secrets
LSOF_ANSWERS_WITHIN_S = 5.0


def is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now. Port 0 is always free."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return error.errno != errno.EADDRINUSE
    return True


def taker(host: str, port: int) -> str:
    """Say in a few words who listens on a port: for people, as exact as the system tells."""
    found = _from_proc(port) if Path("/proc/net/tcp").exists() else _from_lsof(port)
    backend = instance_name(host, port, 1.0) == "local"
    if found is None:
        return "another local backend" if backend else "a process of another user"
    pid, command = found
    return f"another local backend (process {pid}: {command})" if backend else f"process {pid}: {command}"


def instance_name(host: str, port: int, seconds: float) -> str | None:
    """What a Convex-compatible backend says its name is; None when nothing there says so within `seconds`."""
    request = f"GET /instance_name HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n"
    answer = b""
    try:
        with socket.create_connection((host, port), timeout=seconds) as peer:
            peer.sendall(request.encode())
            while len(answer) < ANSWER_BYTES and (block := peer.recv(ANSWER_BYTES)):
                answer += block
    except OSError:
        return None
    head, _, body = answer.partition(b"\r\n\r\n")
    accepted = head.split(b" ")[1:2] == [b"200"]
    return body.decode("utf-8", "replace").strip() if accepted else None


def _from_proc(port: int) -> tuple[int, str] | None:
    sockets = {f"socket:[{inode}]" for inode in _listening(port)}
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            if any(str(handle.readlink()) in sockets for handle in (process / "fd").iterdir()):
                words = (process / "cmdline").read_bytes().decode("utf-8", "replace").split("\0")
                return int(process.name), " ".join(words[:WORDS_SHOWN]).strip()
        except OSError:  # another user's, or gone
            continue
    return None


def _listening(port: int) -> Iterator[str]:
    """The inodes of the sockets that listen on a port, as /proc/net lists them."""
    for table in ("tcp", "tcp6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            _, local, _, state, _, _, _, _, _, inode, *_ = line.split()
            if state == LISTEN and int(local.rpartition(":")[2], 16) == port:
                yield inode


def _from_lsof(port: int) -> tuple[int, str] | None:
    lsof = shutil.which("lsof")
    if lsof is None:
        return None
    try:
        told = subprocess.run(
            [lsof, "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"],
            capture_output=True,
            text=True,
            timeout=LSOF_ANSWERS_WITHIN_S,
            check=False,
        ).stdout
    except (OSError, subprocess.TimeoutExpired):
        return None
    fields = {line[0]: line[1:] for line in told.splitlines() if line}
    return (int(fields["p"]), fields.get("c", "")) if fields.get("p", "").isdecimal() else None
