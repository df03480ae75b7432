"""The files of settings: what is read of them, and what a bad one is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from heartbeat_cli.config_files import ENV_LOCAL_NAMES, ConfigFile, env_local, read_toml
from heartbeat_cli.errors import SettingsProblem

A, B = "https://a.convex.cloud", "https://b.convex.cloud"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.mark.parametrize("name", ENV_LOCAL_NAMES)
def test_env_local_is_read_in_every_spelling_of_convex_dev(file: Path, name: str) -> None:
    file.write_text(f"# Deployment used by `npx convex dev`\nCONVEX_DEPLOYMENT=dev:a\n{name}={A}\n")
    assert env_local(file, []) == (A, f"{name} in {file}")


@pytest.mark.parametrize(
    "line",
    [
        f'CONVEX_URL="{A}"',
        f"export CONVEX_URL='{A}'  # mine",
        f"  CONVEX_URL = {A} # mine",
        f"CONVEX_URL={A}\r",
    ],
)
def test_env_local_is_read_as_dotenv_files_are_written(file: Path, line: str) -> None:
    file.write_text(f"#CONVEX_URL={B}\nOTHER=x\n{line}\n")
    assert env_local(file, [])[0] == A


def test_env_local_with_several_addresses_is_a_warning(file: Path) -> None:
    warnings: list[str] = []
    file.write_text(f"VITE_CONVEX_URL={B}\nCONVEX_URL={A}\n")
    assert env_local(file, warnings)[0] == A
    assert "names several addresses (VITE_CONVEX_URL, CONVEX_URL); using CONVEX_URL" in warnings[0]


def test_without_a_file_there_is_nothing_in_it(file: Path) -> None:
    assert (env_local(file, []), read_toml(file)) == ((None, ""), {})


def test_an_unknown_key_is_a_warning_that_names_it(file: Path) -> None:
    warnings: list[str] = []
    file.write_text("dedline = 5")
    assert ConfigFile(file, warnings).get("deadline") is None
    assert "unknown setting 'dedline'" in warnings[0]


@pytest.mark.parametrize("value", ["[1]", "true", "2026-11-23"])
def test_a_value_of_another_kind_is_told_with_its_file_and_key(file: Path, value: str) -> None:
    file.write_text(f"deadline = {value}\n")
    with pytest.raises(SettingsProblem, match=f"{file}: 'deadline' must be a text or a number"):
        ConfigFile(file, []).get("deadline")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"deadline = 5\nurl = nope\n", "line 2: not TOML"),
        (b'url = "a"\nurl = "b"\n', "not TOML"),
        (b"deadline = 5\n\xff\n", "line 2: not TOML"),
    ],
)
def test_a_file_that_is_no_toml_is_told_with_its_line(file: Path, content: bytes, told: str) -> None:
    file.write_bytes(content)
    with pytest.raises(SettingsProblem, match=rf"{file}.*{told}"):
        read_toml(file)
