"""Which deployment is meant, and where its HTTP actions are: each from the first that says so."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from heartbeat_cli.address import normalise_site_url, normalise_url, site_of
from heartbeat_cli.config_files import ConfigFile
from heartbeat_cli.errors import SettingsProblem

LOCAL_WORD = "local"  # as an address: this user's local backend, whatever else is set
LOCAL_MARK = " (local backend)"  # of a source that says so


def functions_address(
    candidates: Iterable[tuple[str | None, str]], local: str | None, config_file: Path
) -> tuple[str, str]:
    """The address of the functions, and where it came from: the first of the candidates (address, source), or
    that of the `local` backend, if there is one. Raises `SettingsProblem`.
    """
    for given, source in candidates:
        if given is None:
            continue
        if given.strip() == LOCAL_WORD:
            if local is None:
                raise SettingsProblem(
                    f"there is no local backend yet ({source} asks for it)",
                    hint="start it: heartbeat local up",
                )
            return local, source + LOCAL_MARK
        try:
            return normalise_url(given), source
        except SettingsProblem as problem:
            raise SettingsProblem(f"{problem} ({source})", hint=problem.hint) from None
    if local is not None:
        return local, "local backend"
    raise SettingsProblem(
        "no deployment address is set",
        hint="give --url, set HEARTBEAT_URL or CONVEX_URL, write url into "
        f"{config_file}, or start a local backend: heartbeat local up",
    )


def site_address(
    given: tuple[str, str] | None, file: ConfigFile, url: str | None, source: str, warnings: list[str]
) -> tuple[str | None, str]:
    """Where the HTTP actions of the deployment at `url` (which came from `source`) are, and where that came
    from: what was `given`, else what the address tells. One that cannot be is a warning: no heartbeat goes
    there.

    What the file says of it is about the deployment that the file names, and about no other.
    """
    if given is not None and given[1] == str(file.path) and not _names(file, url):
        given = None
    if given is not None:
        try:
            return normalise_site_url(given[0]), given[1]
        except SettingsProblem as problem:
            warnings.append(f"{problem} ({given[1]}); {problem.hint}")
            return None, "not usable"
    derived = None if url is None else site_of(url)
    return derived, "not set" if derived is None else f"derived from url ({source})"


def _names(file: ConfigFile, url: str | None) -> bool:
    try:
        return url is not None and normalise_url((file.get("url") or ("", ""))[0]) == url
    except SettingsProblem:
        return False
