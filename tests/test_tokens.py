"""Tokens: made, kept, and never lost or shown by accident."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat_cli import tokens
from heartbeat_cli.errors import Refused, SettingsProblem

URL = "http://127.0.0.1:7210"


def test_a_token_is_long_random_text_and_its_fingerprint_the_start_of_its_hash() -> None:
    made = {tokens.mint() for _ in range(100)}
    assert len(made) == 100 and all(len(text) == 43 for text in made)
    text = made.pop()
    assert tokens.token_hash(text) == hashlib.sha256(text.encode()).hexdigest()
    assert tokens.fingerprint(text) == tokens.token_hash(text)[:12]


def test_saving_one_address_keeps_the_others_and_leaves_nothing_behind(tmp_path: Path) -> None:
    folder = tmp_path / "config"
    tokens.save(folder, URL, "first", "admin")
    tokens.save(folder, "https://a.convex.cloud", "second", "send")
    tokens.save(folder, URL, "third", None)
    assert tomllib.loads(tokens.path(folder).read_text()) == {
        URL: {"token": "third"},
        "https://a.convex.cloud": {"token": "second", "scope": "send"},
    }
    assert [file.name for file in folder.iterdir()] == ["tokens.toml"]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert tokens.path(folder).stat().st_mode & 0o777 == 0o600


def test_a_file_others_could_read_is_private_after_a_save(tmp_path: Path) -> None:
    tokens.save(tmp_path, URL, "first", "admin").chmod(0o644)
    assert tokens.save(tmp_path, URL, "second", "admin").stat().st_mode & 0o777 == 0o600


@given(text=st.text(st.characters(blacklist_categories=["Cs"]), min_size=1, max_size=50))
def test_whatever_the_text_it_comes_back(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    folder = tmp_path_factory.mktemp("config")
    tokens.save(folder, URL, text, "send", [text, "hint"])
    assert tokens.stored(folder, URL, []) == tokens.Token(text, "send", (text, "hint"))


class Backend:
    """Stands for the local backend's admin door: an idempotent store of hashes."""

    def __init__(self) -> None:
        self.stored: dict[str, str] = {}
        self.revoked: set[str] = set()

    def knows(self, text: str) -> bool:
        return tokens.token_hash(text) in self.stored.keys() - self.revoked

    def __call__(self, path: str, args: Mapping[str, Any]) -> Any:
        assert path == "heartbeat/setup:storeFirstToken"
        request = args["request"]
        if request["tokenHash"] in self.revoked:
            raise Refused("it is revoked", code="conflict")
        self.stored[request["tokenHash"]] = request["scope"]
        return {"fingerprint": request["tokenHash"][:12]}


def test_the_local_backend_gets_one_admin_token_however_often_it_starts(tmp_path: Path) -> None:
    backend = Backend()
    first = tokens.ensure_local_token(tmp_path, URL, backend.knows, backend)
    assert tokens.ensure_local_token(tmp_path, URL, backend.knows, backend) == first
    kept = tokens.stored(tmp_path, URL, [])
    assert kept is not None and kept.scope == "admin"
    assert backend.stored == {tokens.token_hash(kept.text): "admin"}


def test_a_local_backend_whose_data_was_deleted_learns_the_kept_token_again(tmp_path: Path) -> None:
    tokens.save(tmp_path, URL, "kept", "send")
    backend = Backend()
    tokens.ensure_local_token(tmp_path, URL, backend.knows, backend)
    assert backend.stored == {tokens.token_hash("kept"): "send"}


def test_a_kept_token_that_was_revoked_gives_way_to_a_new_one(tmp_path: Path) -> None:
    backend = Backend()
    first = tokens.ensure_local_token(tmp_path, URL, backend.knows, backend).fingerprint
    backend.revoked |= set(backend.stored)
    second = tokens.ensure_local_token(tmp_path, URL, backend.knows, backend)
    assert second.replaced == first != second.fingerprint
    kept = tokens.stored(tmp_path, URL, [])
    assert kept is not None and tokens.fingerprint(kept.text) == second.fingerprint
    assert tokens.ensure_local_token(tmp_path, URL, backend.knows, backend).replaced is None


def test_a_token_is_kept_only_after_the_backend_has_it(tmp_path: Path) -> None:
    def refuses(path: str, args: Mapping[str, Any]) -> Any:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        tokens.ensure_local_token(tmp_path, URL, lambda _: False, refuses)
    assert not tokens.path(tmp_path).exists()


def test_the_line_to_paste_holds_the_hash_and_not_the_token() -> None:
    line = tokens.first_token_line("the-token", "first, box1")
    command, _, argument = line.partition(" '")
    assert command == "npx convex run heartbeat/setup:storeFirstToken"
    assert "the-token" not in line
    assert json.loads(argument.removesuffix("'"))["request"] == {
        "tokenHash": tokens.token_hash("the-token"),
        "name": "first, box1",
        "scope": "admin",
    }


def test_whatever_its_name_the_line_to_paste_is_one_argument() -> None:
    words = shlex.split(tokens.first_token_line("the-token", "it's; $(rm -rf ~) #"))
    assert words[:4] == ["npx", "convex", "run", "heartbeat/setup:storeFirstToken"] and len(words) == 5
    assert json.loads(words[4])["request"]["name"] == "it's; $(rm -rf ~) #"


def test_a_folder_that_cannot_be_written_is_one_sentence() -> None:
    with pytest.raises(SettingsProblem, match="the token cannot be kept in"):
        tokens.save(Path("/proc/self/nowhere"), URL, "secret-text", "send")


def test_two_that_save_at_once_lose_no_token(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from heartbeat_cli import tokens;"
        "[tokens.save(Path(sys.argv[1]), f'http://{sys.argv[2]}{n}', 'x', None) for n in range(20)]"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    writers = [subprocess.Popen([*command, name]) for name in ("a", "b", "c", "d")]
    assert [writer.wait(timeout=60) for writer in writers] == [0] * 4
    assert len(tomllib.loads(tokens.path(tmp_path).read_text())) == 80
