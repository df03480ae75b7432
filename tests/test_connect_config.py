"""config.toml as connect changes it: the addresses, and not one other byte."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat_cli.connect_config import plan
from heartbeat_cli.errors import SettingsProblem

URL, OLD = "https://happy-animal-123.convex.cloud", "https://old.example"
SITE = "https://site.example"
NOW = 1_900_000_000_123


def changed(folder: Path, text: str, site: str | None = None) -> str:
    (folder / "config.toml").write_bytes(text.encode())
    return plan(folder, URL, site).text.decode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", f'url = "{URL}"\n'),
        ("# mine\n", f'# mine\nurl = "{URL}"\n'),
        (
            f'url = "{OLD}"  # where we were\nhost = "box1"\n',
            f'url = "{URL}"  # where we were\nhost = "box1"\n',
        ),
        (f"  'url'='{OLD}'", f"  'url'=\"{URL}\""),
        ("deadline = 5\r\n# \xe9\r\n", f'deadline = 5\r\n# \xe9\r\nurl = "{URL}"\r\n'),
        ("deadline = 5", f'deadline = 5\nurl = "{URL}"\n'),
        ('# a\n[later]\nurl = "x"\n', f'url = "{URL}"\n# a\n[later]\nurl = "x"\n'),
        (f'url = "{URL}/"\n', f'url = "{URL}/"\n'),
        (f'new = 1\nurl = "{OLD}"\nsite_url = "{SITE}" # old\n', f'new = 1\nurl = "{URL}"\n'),
    ],
)
def test_the_address_is_written_and_all_else_stays_as_it_was(tmp_path: Path, before: str, after: str) -> None:
    assert changed(tmp_path, before) == after


def test_both_addresses_are_written_and_the_second_one_stays_with_its_deployment(tmp_path: Path) -> None:
    both = f'url = "{URL}"\nsite_url = "{SITE}"\n'
    assert changed(tmp_path, "", SITE) == both
    assert changed(tmp_path, both) == changed(tmp_path, both, SITE) == both


@pytest.mark.parametrize(
    "text", [f'url = """\n{OLD}"""\n', "url = 5\n", f'x = """\nurl = "{OLD}"\n"""\nurl = {{a = 1}}\n']
)
def test_where_the_change_is_not_certain_the_line_is_told_and_nothing_written(
    tmp_path: Path, text: str
) -> None:
    with pytest.raises(SettingsProblem, match="cannot be changed with certainty") as caught:
        changed(tmp_path, text)
    assert caught.value.hint == f'write into it yourself: url = "{URL}"'


PIECES = [
    f'url = "{OLD}"',
    "url='x'",
    '"url" = "y"  # z',
    "[t]",
    "[[l]]",
    "# c",
    'a = "url = 1"',
    "b = [",
    "]",
]
PIECES += ["'''", 'c = """', '"""', 'site_url = "s"', "u.rl = 1", "", '"', "\\"]


@given(lines=st.lists(st.sampled_from(PIECES), max_size=6), ending=st.sampled_from(["\n", "\r\n"]))
def test_whatever_stands_there_the_file_says_the_same_but_for_the_address(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], ending: str
) -> None:
    text = ending.join(lines)
    try:
        said = tomllib.loads(text)
        after = changed(tmp_path_factory.mktemp("config"), text)
    except (tomllib.TOMLDecodeError, SettingsProblem):
        return
    kept = {key: value for key, value in said.items() if key != "site_url"}
    assert tomllib.loads(after) == kept | {"url": URL}
    named = ("url", '"url"', "site_url")
    mine = [line for line in after.splitlines() if not line.strip().startswith(named)]
    assert mine == [line for line in text.splitlines() if not line.strip().startswith(named)]


def test_the_old_file_is_kept_and_its_rights_and_its_link_stay(tmp_path: Path) -> None:
    real = tmp_path / "dotfiles.toml"
    real.write_text(f'url = "{OLD}"\n')
    real.chmod(0o640)
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "config.toml").symlink_to(real)
    planned = plan(tmp_path / "config", URL, None)
    assert planned.diff == [f"{real}:", f'  - url = "{OLD}"', f'  + url = "{URL}"']
    kept = planned.write(NOW)
    assert kept is not None and kept.read_text() == f'url = "{OLD}"\n' and kept.parent == tmp_path
    assert real.read_text() == f'url = "{URL}"\n' and real.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "config" / "config.toml").is_symlink()
    assert not plan(tmp_path / "config", URL, None).changes


def test_a_new_file_is_its_users_alone(tmp_path: Path) -> None:
    assert plan(tmp_path / "new", URL, None).write(NOW) is None
    assert (tmp_path / "new" / "config.toml").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700


def test_a_file_that_was_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    planned = plan(tmp_path, URL, None)
    (tmp_path / "config.toml").write_text("host = 'somebody else'\n")
    with pytest.raises(SettingsProblem, match="changed by somebody else"):
        planned.write(NOW)
    assert [file.name for file in tmp_path.iterdir()] == ["config.toml"]


def test_a_folder_that_cannot_be_written_is_one_sentence() -> None:
    with pytest.raises(SettingsProblem, match="cannot be written"):
        plan(Path("/proc/self/nowhere"), URL, None).write(NOW)
