"""Settings: who wins, where a value came from, and what a wrong one is told."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from heartbeat_cli import tokens
from heartbeat_cli.config import Flags, Settings, load
from heartbeat_cli.config_files import CONFIG_KEYS
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
    file = config_file(user, f'deadline = "{value}"')
    with pytest.raises(SettingsProblem, match=rf"deadline '{value}' \({file}\)"):
        settings(user)


def test_a_wrong_transport_names_the_right_ones(user: Path) -> None:
    with pytest.raises(SettingsProblem, match=r"'smoke' \(--transport\) is not one of auto, ws, http"):
        settings(user, transport="smoke")


def test_a_broken_tokens_file_stops_only_who_needs_a_token_and_never_shows_it(user: Path) -> None:
    config_file(user, f'["{A}"]\ntoken = "{TOKEN}\n', "tokens.toml")
    found = settings(user, url=A)
    assert (found.token, found.token_source) == (None, "not usable")
    told = f"{found.token_problem} {found.token_problem and found.token_problem.hint}"
    assert TOKEN not in told and "tokens.toml, line 2" in told


def test_an_unknown_scope_is_a_warning_that_names_the_file(user: Path) -> None:
    file = config_file(user, f'["{A}"]\ntoken = "{TOKEN}"\nscope = "banana"\n', "tokens.toml")
    file.chmod(0o600)
    found = settings(user, url=A)
    assert (found.token, found.token_scope) == (TOKEN, None)
    assert found.warnings == (f"{file}: the scope 'banana' of {A} is none of send, read, admin",)


@pytest.mark.parametrize("home", ["~nosuchuser/x", "x" * 300, "a\0b"])
def test_a_home_that_no_path_can_be_is_one_sentence(user: Path, home: str) -> None:
    with pytest.raises(SettingsProblem, match=r"the home folder .* \(--home\) is not a folder"):
        settings(user, home=home)


@pytest.mark.parametrize("log", ["~nosuchuser/x", "a\0b"])
def test_a_log_that_no_path_can_be_is_a_warning(user: Path, log: str) -> None:
    found = settings(user, {"HEARTBEAT_LOG": log})
    assert found.log_path == user / "fleet" / "logs" / "agent-heartbeat.log"
    assert "(HEARTBEAT_LOG) cannot be the path of a file" in found.warnings[0]


def test_the_home_of_the_user_is_the_systems_where_the_variable_is_none(user: Path) -> None:
    ours = Path(pwd.getpwuid(os.getuid()).pw_dir)
    for home in ("", "relative/path"):
        assert load(Flags(), {"HOME": home}, user).config_dir == ours / ".config" / "convex-heartbeat"
    assert load(Flags(), {"HOME": str(user)}, user).config_dir == user / ".config" / "convex-heartbeat"
    assert settings(user, home="~/fleet").home == user / "fleet"


def test_a_width_that_is_none_is_not_used(user: Path) -> None:
    assert settings(user, {"COLUMNS": "120"}).columns == 120
    assert settings(user, {"COLUMNS": "9" * 5000}).columns is None


def test_what_a_process_of_ours_inherits_holds_no_secret(user: Path) -> None:
    passed_on = {"PATH": "/bin", "HOME": str(user), "NODE_COMPILE_CACHE": "/tmp/compiled"}  # noqa: S108
    env = {**passed_on, "NODE_OPTIONS": "--inspect", "HEARTBEAT_TOKEN": TOKEN}
    assert settings(user, env).inherited == passed_on


def test_the_variables_for_another_shell_are_what_this_one_alone_knows(user: Path) -> None:
    assert settings(user).variables() == []
    env = {"XDG_DATA_HOME": str(user / "d"), "CONVEX_URL": A, "HEARTBEAT_HOST": "h", "HEARTBEAT_TOKEN": TOKEN}
    assert settings(user, env, deadline="2.5").variables() == [
        ("XDG_DATA_HOME", str(user / "d")),
        ("HEARTBEAT_URL", A),
        ("HEARTBEAT_DEADLINE", "2.5"),
        ("HEARTBEAT_HOST", "h"),
    ]
    config_file(user, f'url = "{A}"\nhost = "h"')
    env_local(user, f"CONVEX_URL={B}")
    assert settings(user).variables() == []
    assert settings(user, {"XDG_DATA_HOME": str(user / ".local/share")}).variables() == []


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
    assert found.warnings == (f"other users can read {file}; mend it: chmod 600 {file}",)


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
    values["site_url"] = "https://site.example"
    assert set(values) == set(CONFIG_KEYS)
    config_file(user, "\n".join(f"{key} = {value!r}" for key, value in values.items()))
    assert {settings(user).sources[key] for key in values} == {
        str(user / ".config" / "convex-heartbeat" / "config.toml")
    }


SITE = "https://site.example"


def site(user: Path, env: Mapping[str, str] | None = None, **flags: str) -> tuple[str | None, str]:
    found = settings(user, env, **flags)
    return found.site_url, found.sources["site_url"]


def test_the_address_of_the_http_actions_is_the_first_that_is_named_else_derived(user: Path) -> None:
    assert site(user) == (None, "not set")
    assert site(user, {"CONVEX_URL": A}) == ("https://a.convex.site", "derived from url (CONVEX_URL)")
    assert site(user, url="https://convex.example") == (None, "not set")
    file = config_file(user, f'url = "{B}/"\nsite_url = "{SITE}/"\n')
    assert site(user) == (SITE, str(file))
    # what the file says of its own deployment is about no other
    assert site(user, url=A) == ("https://a.convex.site", "derived from url (--url)")
    env = {"HEARTBEAT_SITE_URL": "https://site.of.variable"}
    assert site(user, env) == ("https://site.of.variable", "HEARTBEAT_SITE_URL")
    assert site(user, env, site_url="https://site.of.flag") == ("https://site.of.flag", "--site-url")


def test_that_of_the_local_backend_is_what_it_said(user: Path) -> None:
    record = user / ".local" / "share" / "convex-heartbeat" / "local" / "backend.json"
    record.parent.mkdir(parents=True)
    record.write_text(json.dumps({"url": "http://127.0.0.1:7210", "siteUrl": "http://127.0.0.1:7211"}))
    assert site(user) == ("http://127.0.0.1:7211", "local backend")


@pytest.mark.parametrize(
    "wrong", ["nonsense", "https://a.convex.cloud", "https://u:p@site.example", "http://h/x"]
)
def test_one_that_cannot_be_is_a_warning_and_stops_nothing(user: Path, wrong: str) -> None:
    found = settings(user, {"HEARTBEAT_SITE_URL": wrong, "CONVEX_URL": A})
    assert (found.url, found.site_url, found.sources["site_url"]) == (A, None, "not usable")
    assert any("(HEARTBEAT_SITE_URL); " in warning for warning in found.warnings)
