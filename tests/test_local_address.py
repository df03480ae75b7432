"""The address of this user's local backend: the newest that is known, or none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from heartbeat_cli.local_address import local_url

URL = "http://127.0.0.1:7210"


def write(data_dir: Path, name: str, text: str) -> None:
    (data_dir / "local").mkdir(exist_ok=True)
    (data_dir / "local" / name).write_text(text)


def test_before_the_first_time_there_is_none(tmp_path: Path) -> None:
    assert local_url(tmp_path) is None


def test_it_is_what_up_wrote_down(tmp_path: Path) -> None:
    write(tmp_path, "backend.json", json.dumps({"url": URL, "more": 1}))
    assert local_url(tmp_path) == URL


@pytest.mark.parametrize("damage", ["", "[]", "{}", '{"url": 7}', '{"url": "http://127.0.0.1:x"}', "\0"])
def test_where_that_is_damaged_it_is_what_the_backend_said_of_itself(tmp_path: Path, damage: str) -> None:
    write(tmp_path, "backend.json", damage)
    assert local_url(tmp_path) is None
    write(tmp_path, "ready.json", json.dumps({"url": URL}))
    assert local_url(tmp_path) == URL
