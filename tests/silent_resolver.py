"""Run a program on a machine whose name server takes questions and never answers.

`unshare --mount --net … python silent_resolver.py COMMAND…`: inside the new namespaces, /etc/resolv.conf
points to a socket on loopback that nobody reads. `wrap` says how to start it here (Linux, where allowed).
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
DNS_PORT = 53


def wrap(command: list[str]) -> list[str] | None:
    """`command`, to be run where no name is ever resolved."""
    for privileges in ([], ["--user", "--map-root-user"]):
        namespaces = ["unshare", *privileges, "--mount", "--net"]
        try:
            allowed = subprocess.run([*namespaces, "mount", "--version"], capture_output=True, check=False)
        except OSError:
            return None
        if allowed.returncode == 0:
            return [*namespaces, sys.executable, __file__, *command]
    return None


def main() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.bind(("127.0.0.1", DNS_PORT))
    server.set_inheritable(True)  # or the port would answer "unreachable" at once
    for name, text in (("resolv.conf", "nameserver 127.0.0.1\n"), ("nsswitch.conf", "hosts: files dns\n")):
        path = Path("/etc") / name
        if path.exists():
            file = Path(tempfile.mkstemp()[1])
            file.write_text(text)
            subprocess.run(["mount", "--bind", file, path.resolve()], check=True)
            file.unlink()
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the whole point


if __name__ == "__main__":
    main()
