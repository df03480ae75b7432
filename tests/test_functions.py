"""What a push would take away from a deployment is named before it happens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from conftest import REPOSITORY
from heartbeat_cli.errors import SettingsProblem, UsageProblem
from heartbeat_cli.functions import foreign_functions


def spec(*functions: Mapping[str, object]) -> str:
    return json.dumps({"url": "https://happy-otter-123.convex.cloud", "functions": functions})


def test_an_empty_deployment_and_our_own_functions_hold_nothing_foreign() -> None:
    ours = {"identifier": "mutations/recordHeartbeat.js:default", "functionType": "Mutation"}
    sweep = {"identifier": "heartbeat/maintenance.js:sweep", "functionType": "Mutation"}
    assert foreign_functions(spec(), REPOSITORY / "convex") == []
    assert foreign_functions(spec(ours, sweep), REPOSITORY / "convex") == []


def test_functions_and_routes_of_somebody_else_are_named() -> None:
    found = foreign_functions(
        spec(
            {"identifier": "messages.js:list", "functionType": "Query"},
            {"identifier": "mutations/recordHeartbeat.js:other", "functionType": "Mutation"},
            {"functionType": "HttpAction", "method": "POST", "path": "/stripe"},
        ),
        REPOSITORY / "convex",
    )
    assert found == ["POST /stripe", "messages:list", "mutations/recordHeartbeat:other"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "✖ No CONVEX_DEPLOYMENT set",
        "[]",
        '{"functions": [{"no": "name"}]}',
        '{"functions": [{"identifier": 5}]}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:40],
)
def test_a_deployment_that_could_not_be_asked_never_looks_empty(text: str) -> None:
    with pytest.raises(UsageProblem, match="function-spec"):
        foreign_functions(text, REPOSITORY / "convex")


def test_a_folder_without_functions_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(SettingsProblem, match="no Convex functions"):
        foreign_functions(spec(), tmp_path)


def test_an_app_knows_its_own_functions_and_routes_in_either_language(tmp_path: Path) -> None:
    """Also those of ours that it took in."""
    (tmp_path / "heartbeat").mkdir()
    (tmp_path / "heartbeat" / "maintenance.ts").write_text("export const sweep = internalMutation({})")
    (tmp_path / "notes.js").write_text("export const list = query({})")
    (tmp_path / "http.ts").write_text(
        "http.route({ path: '/stripe', method: 'POST', handler });\n"
        'http . route({ method: "GET", handler, pathPrefix: "/files/" });\n'
        "// http.route({ path: '/old', method: 'GET', handler });\n"
    )
    told = spec(
        {"identifier": "notes.js:list", "functionType": "Query"},
        {"identifier": "heartbeat/maintenance.js:sweep", "functionType": "Mutation"},
        *(
            {"functionType": "HttpAction", "method": method, "path": path}
            for method, path in (("POST", "/stripe"), ("GET", "/files/*"), ("GET", "/old"))
        ),
    )
    assert foreign_functions(told, tmp_path) == ["GET /old"]
