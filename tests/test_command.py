"""Where a command is started: a working directory that is gone, folders that may not be searched."""

from __future__ import annotations

import sys

import pytest

from conftest import AS_A_USER, Cli
from deployment import Deployment
from test_send import scripted, sent

GO_AND_REMOVE = """
import os, sys
os.chdir(sys.argv[1])
os.rmdir(sys.argv.pop(1))
from heartbeat_cli.cli import main
main()
"""


def test_a_working_directory_that_is_gone_stops_no_heartbeat(user: Cli) -> None:
    gone = user.folder / "gone"
    gone.mkdir()
    with Deployment(scripted()) as deployment:
        done = user(
            "send",
            "hint",
            env={"HEARTBEAT_URL": deployment.url, "HEARTBEAT_HOME": str(user.home)},
            program=(sys.executable, "-c", GO_AND_REMOVE, str(gone)),
        )
        assert sent(deployment)["status"] == "working"
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("place", ["where it starts", "above its home", "its home"])
def test_a_folder_that_may_not_be_searched_stops_no_heartbeat(user: Cli, place: str) -> None:
    closed = user.folder / "closed"
    (closed / "inner").mkdir(parents=True)
    home = {"where it starts": user.home, "above its home": closed / "inner", "its home": closed}[place]
    go = f"import os; os.chdir({str(closed)!r}); os.chmod('.', 0)\nfrom heartbeat_cli.cli import main; main()"
    try:
        with Deployment(scripted()) as deployment:
            env = {"HEARTBEAT_URL": deployment.url, "HEARTBEAT_HOME": str(home)}
            if place == "where it starts":
                env.pop("HEARTBEAT_HOME")
            done = user("send", "hint", env=env, program=(*AS_A_USER, sys.executable, "-c", go))
            recorded = [path for path, _ in deployment.calls if path.startswith("mutations")]
    finally:
        closed.chmod(0o700)
    assert "Traceback" not in done.err
    if place == "above its home":
        assert done.code == 2 and "(HEARTBEAT_HOME) is not a folder" in done.err
    else:
        assert done.code == 0 and recorded, done
