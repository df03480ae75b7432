"""Settings: who wins, where a value came from, and what a wrong one is told."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from heartbeat_cli import config, tokens
from heartbeat_cli.config import ENV_LOCAL_NAMES, Flags, Settings, load
from heartbeat_cli.errors import SettingsProblem

A, B, C, D, E = (f"https://{name}.convex.cloud" for name in "abcde")
TOKEN = "token-of-the-tests"  # noqa: S105 - opens nothing


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """A user's home folder with a fleet in it."""
    (tmp_path / "fleet" / "deep" / "er").mkdir(parents=True)
    (tmp_path / "fleet" / "cron-schedule.md").touch()
    return tmp_path


def settings(user: Path, env: Mapping[str, str] | None = None, cwd: str = "fleet", **flags: str) -> Settings:
    return load(Flags(**flags), {"HOME": str(user), **(env or {})}, user / cwd)


def config_file(user: Path, text: str, name: str = "config.toml") -> Path:
    file = user / ".config" / "convex-heartbeat" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return file


def env_local(user: Path, text: str, folder: str = "fleet") -> None:
    (user / folder / ".env.local").write_text(text, encoding="utf-8")


def test_the_address_comes_from_the_first_that_names_one(user: Path) -> None:
    config_file(user, f'url = "{D}"')
    env_local(user, f"CONVEX_URL={E}\n")
    env = {"HEARTBEAT_URL": B, "CONVEX_URL": C}
    assert (settings(user, env, url=A).url, settings(user, env, url=A).url_source) == (A, "--url")
    assert (settings(user, env).url, settings(user, env).url_source) == (B, "HEARTBEAT_URL")
    env = {"CONVEX_URL": C, "HEARTBEAT_URL": ""}
    assert (settings(user, env).url, settings(user, env).url_source) == (C, "CONVEX_URL")
    assert settings(user).url == D and settings(user).url_source.endswith("config.toml")
    config_file(user, "")
    assert settings(user).url == E
    assert settings(user).url_source == f"CONVEX_URL in {user}/fleet/.env.local"


def test_without_any_address_what_to_set_is_told_only_to_who_needs_one(user: Path) -> None:
    found = settings(user)
    assert found.url is None and found.shown_deployment() is None
    with pytest.raises(SettingsProblem, match="no deployment address is set") as caught:
        found.deployment()
    assert all(word in str(caught.value.hint) for word in ("--url", "HEARTBEAT_URL", "heartbeat local up"))


@pytest.mark.parametrize("name", ENV_LOCAL_NAMES)
def test_env_local_is_read_in_every_spelling_of_convex_dev(user: Path, name: str) -> None:
    env_local(user, f"# Deployment used by `npx convex dev`\nCONVEX_DEPLOYMENT=dev:a\n{name}={A}\n")
    assert settings(user).url == A


@pytest.mark.parametrize(
    "line",
    [
        f'CONVEX_URL="{A}"',
        f"export CONVEX_URL='{A}'  # mine",
        f"  CONVEX_URL = {A} # mine",
        f"CONVEX_URL={A}/\r",
    ],
)
def test_env_local_is_read_as_dotenv_files_are_written(user: Path, line: str) -> None:
    env_local(user, f"#CONVEX_URL={B}\nOTHER=x\n{line}\n")
    assert settings(user).url == A


def test_env_local_with_several_addresses_is_a_warning(user: Path) -> None:
    env_local(user, f"VITE_CONVEX_URL={B}\nCONVEX_URL={A}\n")
    assert settings(user).url == A
    assert (
        "names several addresses (VITE_CONVEX_URL, CONVEX_URL); using CONVEX_URL"
        in settings(user).warnings[0]
    )


def test_env_local_of_the_working_directory_counts_for_nothing(user: Path) -> None:
    env_local(user, f"CONVEX_URL={A}", "fleet/deep")
    assert settings(user, cwd="fleet/deep").url is None


def test_an_address_that_cannot_be_one_names_where_it_came_from(user: Path) -> None:
    found = settings(user, {"HEARTBEAT_URL": "127.0.0.1:7210"})
    with pytest.raises(SettingsProblem, match=r"127\.0\.0\.1:7210.*\(HEARTBEAT_URL\)"):
        found.deployment()


def test_the_word_local_needs_a_local_backend(user: Path) -> None:
    found = settings(user, {"HEARTBEAT_URL": "local"})
    with pytest.raises(SettingsProblem, match=r"no local backend yet \(HEARTBEAT_URL asks for it\)"):
        found.deployment()


def test_home_is_the_flag_the_variable_the_nearest_page_or_the_data_folder(user: Path) -> None:
    (user / "other").mkdir()
    env = {"HEARTBEAT_HOME": str(user / "fleet" / "deep")}
    assert settings(user, env, home=str(user / "other")).home == user / "other"
    assert settings(user, env).home == user / "fleet" / "deep"
    assert settings(user, cwd="fleet/deep/er").home == user / "fleet"
    assert settings(user, cwd="other").home == user / ".local" / "share" / "convex-heartbeat"
    assert settings(user, home="../other").home == user / "other"
    with pytest.raises(SettingsProblem, match=r"nowhere' \(HEARTBEAT_HOME\) is not a folder"):
        settings(user, {"HEARTBEAT_HOME": str(user / "nowhere")})


def test_other_settings_go_flag_variable_file_default(user: Path) -> None:
    assert (settings(user).deadline_s, settings(user).sources["deadline"]) == (10.0, "default")
    config_file(user, 'deadline = 5\ntransport = "http"\nhost = "box1"\nlog = "/var/log/hb.log"')
    found = settings(user)
    assert (found.deadline_s, found.transport, found.host) == (5.0, "http", "box1")
    assert found.log_path == Path("/var/log/hb.log")
    env = {"HEARTBEAT_DEADLINE": "7.5", "HEARTBEAT_TRANSPORT": "ws", "HEARTBEAT_LOG": "here.log"}
    found = settings(user, env, deadline="3")
    assert (found.deadline_s, found.sources["deadline"]) == (3.0, "--deadline")
    assert (found.transport, found.sources["transport"]) == ("ws", "HEARTBEAT_TRANSPORT")
    assert found.log_path == user / "fleet" / "here.log"


@pytest.mark.parametrize("value", ["soon", "0", "-1", "0.99", "601", "nan", "inf", "1e9", "10s"])
def test_a_wrong_deadline_names_its_variable(user: Path, value: str) -> None:
    with pytest.raises(SettingsProblem, match=rf"deadline '{value}' \(HEARTBEAT_DEADLINE\)"):
        settings(user, {"HEARTBEAT_DEADLINE": value})


def test_a_wrong_transport_names_the_right_ones(user: Path) -> None:
    with pytest.raises(SettingsProblem, match=r"'smoke' \(--transport\) is not one of auto, ws, http"):
        settings(user, transport="smoke")


def test_an_unknown_key_is_a_warning_that_names_it(user: Path) -> None:
    config_file(user, "dedline = 5")
    assert "unknown setting 'dedline'" in settings(user).warnings[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("deadline = 5\nurl = nope\n", "line 2: not TOML"),
        ('url = "a"\nurl = "b"\n', "not TOML"),
        ("deadline = [1]\n", "'deadline' must be a text or a number"),
        ("deadline = true\n", "'deadline' must be a text or a number"),
        ('deadline = "x"\n', "deadline 'x'"),
    ],
)
def test_a_bad_config_file_is_told_with_its_line(user: Path, text: str, told: str) -> None:
    file = config_file(user, text)
    with pytest.raises(SettingsProblem) as caught:
        settings(user)
    assert told in str(caught.value) and str(file) in str(caught.value)


def test_a_config_file_that_is_no_text_is_told_with_its_line(user: Path) -> None:
    config_file(user, "").write_bytes(b"deadline = 5\n\xff\n")
    with pytest.raises(SettingsProblem, match="line 2: not TOML"):
        settings(user)


def test_a_broken_tokens_file_never_shows_the_token(user: Path) -> None:
    config_file(user, f'["{A}"]\ntoken = "{TOKEN}\n', "tokens.toml")
    with pytest.raises(SettingsProblem) as caught:
        settings(user, url=A)
    assert TOKEN not in f"{caught.value} {caught.value.hint}" and "line 2" in str(caught.value)


def test_a_token_goes_only_to_the_address_it_is_kept_for(user: Path) -> None:
    config_dir = user / ".config" / "convex-heartbeat"
    tokens.save(config_dir, A, TOKEN, "send")
    tokens.save(config_dir, B, "another", None)
    assert (settings(user, url=A + "/").token, settings(user, url=A).token_scope) == (TOKEN, "send")
    assert (settings(user, url=B).token, settings(user, url=B).token_scope) == ("another", None)
    assert settings(user, url=C).token is None
    assert settings(user).token is None


def test_the_variable_with_a_token_wins_over_the_file(user: Path) -> None:
    tokens.save(user / ".config" / "convex-heartbeat", A, "kept", "admin")
    found = settings(user, {"HEARTBEAT_TOKEN": TOKEN}, url=A)
    assert (found.token, found.token_source, found.token_scope) == (TOKEN, "HEARTBEAT_TOKEN", None)


def test_a_token_never_shows_in_a_repr(user: Path) -> None:
    found = settings(user, {"HEARTBEAT_TOKEN": TOKEN}, url=A)
    assert TOKEN not in repr(found)
    assert TOKEN not in repr(tokens.Token(TOKEN, "send"))


def test_a_tokens_file_that_others_can_read_is_used_and_its_cure_told(user: Path) -> None:
    file = tokens.save(user / ".config" / "convex-heartbeat", A, TOKEN, "send")
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o640)
    found = settings(user, url=A)
    assert found.token == TOKEN
    assert found.warnings == (f"other users can read the tokens in {file}; mend it: chmod 600 {file}",)


@pytest.mark.parametrize(
    ("env", "colour"),
    [({}, True), ({"NO_COLOR": "1"}, False), ({"NO_COLOR": ""}, True), ({"TERM": "dumb"}, False)],
)
def test_no_color_wins(user: Path, env: dict[str, str], colour: bool) -> None:
    assert settings(user, env).colour is colour


def test_relative_xdg_folders_are_ignored_as_their_specification_says(user: Path) -> None:
    found = settings(user, {"XDG_CONFIG_HOME": "here", "XDG_DATA_HOME": str(user / "data")})
    assert found.config_dir == user / ".config" / "convex-heartbeat"
    assert found.data_dir == user / "data" / "convex-heartbeat"


def test_every_known_key_is_one_that_is_read(user: Path) -> None:
    values: dict[str, Any] = {"url": A, "deadline": 5, "transport": "http", "log": "x.log", "host": "box1"}
    assert set(values) == set(config.CONFIG_KEYS)
    config_file(user, "\n".join(f"{key} = {value!r}" for key, value in values.items()))
    assert {settings(user).sources[key] for key in values} == {
        str(user / ".config" / "convex-heartbeat" / "config.toml")
    }
