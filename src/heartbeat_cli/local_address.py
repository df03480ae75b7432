"""The addresses of this user's local backend. A module of its own: every `send` asks for it, and asks nothing
else of the local backend.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

FOLDER = "local"  # in the data folder
RECORD_FILE = "backend.json"  # in that; instance.py says what they hold
READY_FILE = "ready.json"
ADDRESS = re.compile(r"http://[^/:]+:\d{1,5}")


def local_url(data_dir: Path) -> str | None:
    """The address that `heartbeat local up` made for this user, whether or not the backend runs now.

    None before the first time.
    """
    return _recorded(data_dir, "url")


def local_site_url(data_dir: Path) -> str | None:
    """The same for the address of its HTTP actions."""
    return _recorded(data_dir, "siteUrl")


def _recorded(data_dir: Path, key: str) -> str | None:
    # the second is what the backend itself said, for the day on which our own record is damaged
    for name in (RECORD_FILE, READY_FILE):
        try:
            url = json.loads((data_dir / FOLDER / name).read_bytes())[key]
        except (OSError, ValueError, TypeError, KeyError):
            continue
        if isinstance(url, str) and ADDRESS.fullmatch(url):
            return url
    return None
