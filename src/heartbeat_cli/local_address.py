"""The address of this user's local backend. A module of its own: every `send` asks for it, and asks nothing
else of the local backend.
"""

from __future__ import annotations

import json
from pathlib import Path

FOLDER = "local"  # in the data folder
RECORD_FILE = "backend.json"  # in that; instance.py says what it holds


def local_url(data_dir: Path) -> str | None:
    """The address that `heartbeat local up` made for this user, whether or not the backend runs now.

    None before the first time, and when what was written down cannot be read.
    """
    try:
        url = json.loads((data_dir / FOLDER / RECORD_FILE).read_bytes())["url"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return url if isinstance(url, str) else None
