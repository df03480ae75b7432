"""The token that a host keeps for a deployment: how it comes by its first, and never by a second."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from heartbeat_cli import scrub, tokens
from heartbeat_cli.connect_token import Given, Held, Settling, judged
from heartbeat_cli.errors import Refused, SettingsProblem, Unreachable, UsageProblem

URL = "https://happy-animal-123.convex.cloud"
KEY = "prod:happy-animal-123|eyJ2MiI6ImRlcGxveS1rZXkifQ=="


@dataclass
class Deployment:
    """The tokens of a deployment, as its functions keep them; `cut`: its next answer is lost."""

    scopes: dict[str, str] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)
    cut: str | None = None

    def ask(self, text: str) -> Mapping[str, Any] | None:
        scope = self.scopes.get(tokens.token_hash(text))
        if scope is None or tokens.token_hash(text) in self.revoked:
            return None
        agents = ["hint", "torv"] if scope == "send" else []
        return {"scope": scope, "fingerprint": tokens.fingerprint(text), "agents": agents}

    def store(self, path: str, args: Mapping[str, Any]) -> Any:
        assert path == "heartbeat/setup:storeFirstToken"
        request = args["request"]
        if self.cut == "before":
            raise Unreachable("cut", cause="cut")
        if request["tokenHash"] in self.revoked:
            raise Refused("it is revoked", code="conflict")
        self.scopes[request["tokenHash"]] = request["scope"]
        if self.cut == "after":
            raise Unreachable("cut", cause="cut")

    def knows(self, text: str, scope: str) -> str:
        self.scopes[tokens.token_hash(text)] = scope
        return text


@pytest.fixture
def there() -> Deployment:
    return Deployment()


@pytest.fixture
def here(tmp_path: Path, there: Deployment) -> Settling:
    return Settling(tmp_path, URL, there.ask, "box1")


def kept(here: Settling) -> tokens.Token | None:
    return tokens.stored(here.config_dir, URL, [])


def test_the_first_token_is_admins_and_the_second_time_nothing_is_made(
    here: Settling, there: Deployment
) -> None:
    first = here.settle(None, there.store)
    assert (first.outcome, first.scope, first.replaced) == ("made", "admin", None)
    assert kept(here) == tokens.Token(str(first.text), "admin")
    for again in (here.settle(None, there.store), here.settle(None, None), here.settle(first.text, None)):
        assert again == Held("unchanged", first.text, "admin")
    assert len(there.scopes) == 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_an_attempt_that_is_cut_off_is_gone_on_with_and_makes_no_second_token(
    here: Settling, there: Deployment, when: str
) -> None:
    there.cut = when
    with pytest.raises(Unreachable):
        here.settle(None, there.store)
    begun, there.cut = kept(here), None
    assert begun is not None and here.settle(None, there.store).text == begun.text
    assert there.scopes == {tokens.token_hash(begun.text): "admin"}


def test_a_kept_token_that_was_revoked_gives_way_to_a_new_one(here: Settling, there: Deployment) -> None:
    first = here.settle(None, there.store)
    there.revoked |= set(there.scopes)
    with pytest.raises(SettingsProblem, match="does not accept the token that is kept"):
        here.settle(None, None)
    second = here.settle(None, there.store)
    assert second.outcome == "made" and second.text != first.text and second.replaced is None


def test_a_token_that_works_stays_until_its_better_is_stored(here: Settling, there: Deployment) -> None:
    tokens.save(here.config_dir, URL, there.knows("the-send-token", "send"), "send")
    assert here.settle(None, None).outcome == "unchanged"
    # kept by a version that did not note for whom it is
    assert kept(here) == tokens.Token("the-send-token", "send", ("hint", "torv"))
    there.cut = "after"
    with pytest.raises(Unreachable):
        here.settle(None, there.store)
    assert kept(here) == tokens.Token("the-send-token", "send", ("hint", "torv"))
    there.cut = None
    better = here.settle(None, there.store)
    assert (better.scope, better.replaced) == ("admin", tokens.fingerprint("the-send-token"))
    assert kept(here) == tokens.Token(str(better.text), "admin")


def test_one_that_another_deployment_stored_is_kept_no_more(here: Settling, there: Deployment) -> None:
    other = Deployment()
    with pytest.raises(SettingsProblem, match="by another deployment") as caught:
        here.settle(None, other.store)
    [made] = other.scopes
    assert kept(here) is None and f"token revoke {made[:12]}" in str(caught.value.hint)
    assert ".env.local" in str(caught.value.hint)
    # one that works is not given up for it
    tokens.save(here.config_dir, URL, there.knows("the-send-token", "send"), "send")
    with pytest.raises(SettingsProblem, match="by another deployment"):
        here.settle(None, other.store)
    assert kept(here) == tokens.Token("the-send-token", "send")


def test_a_token_that_was_handed_over_is_kept_with_the_scope_that_it_has(
    here: Settling, there: Deployment
) -> None:
    held = here.settle(there.knows("for-box1", "send"), None)
    assert (held.outcome, kept(here)) == ("kept", tokens.Token("for-box1", "send", ("hint", "torv")))
    newer = here.settle(there.knows("newer-for-box1", "send"), None)
    assert newer.replaced == tokens.fingerprint("for-box1")
    assert kept(here) == tokens.Token("newer-for-box1", "send", ("hint", "torv"))


def test_a_token_that_the_deployment_does_not_know_is_not_kept(here: Settling, there: Deployment) -> None:
    with pytest.raises(Refused, match="does not accept that token") as caught:
        here.settle("from-elsewhere", None)
    assert "from-elsewhere" not in str(caught.value) and kept(here) is None


def test_an_admin_token_does_not_give_way_to_a_lesser_one(here: Settling, there: Deployment) -> None:
    first = here.settle(None, there.store)
    with pytest.raises(UsageProblem, match="keeps an admin token"):
        here.settle(there.knows("for-box1", "send"), None)
    assert kept(here) == tokens.Token(str(first.text), "admin")


def test_planning_keeps_nothing_anywhere(tmp_path: Path, there: Deployment) -> None:
    planning = Settling(tmp_path, URL, there.ask, "box1", planning=True)
    assert planning.settle(None, there.store) == Held("planned", None, "admin")
    assert planning.settle(there.knows("for-box1", "send"), None).outcome == "planned"
    assert list(tmp_path.iterdir()) == [] and len(there.scopes) == 1


def test_with_nothing_given_and_nothing_kept_what_to_give_is_told(here: Settling) -> None:
    with pytest.raises(SettingsProblem, match="no token is kept") as caught:
        here.settle(None, None)
    assert "printenv CONVEX_DEPLOY_KEY | heartbeat connect" in str(caught.value.hint)


# --- what is handed over


@pytest.mark.parametrize(
    ("text", "url", "given"),
    [
        (f"{KEY}\n", URL, Given(key=KEY)),
        ("dev:happy-animal-123|x1\n", URL, Given(key="dev:happy-animal-123|x1")),
        (
            "happy-animal-123|x1",
            "https://happy-animal-123.eu-west-1.convex.cloud",
            Given(key="happy-animal-123|x1"),
        ),
        ("my-instance|0123", "https://convex.example", Given(key="my-instance|0123")),
        ("prod:happy-animal-123|x1", "https://api.example", Given(key="prod:happy-animal-123|x1")),
        (" a-token_of-ours \n", URL, Given("a-token_of-ours")),
        ("\n", URL, Given()),
    ],
)
def test_keys_are_told_from_tokens(text: str, url: str, given: Given) -> None:
    assert judged(text, url) == given
    assert "x1" not in repr(judged(text, url))


@pytest.mark.parametrize("text", [KEY, f"{KEY} and more", "a-token-of-ours", KEY.replace("happy", "brave")])
def test_what_was_handed_over_is_in_no_output_from_then_on(text: str) -> None:
    scrub.forget()
    with suppress(UsageProblem):
        judged(text, URL)
    told = scrub.scrubbed(f"before {text} after")
    assert text.rpartition("|")[2] not in told and told.startswith("before ")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("prod:brave-otter-7|secret-part", "the deploy key of brave-otter-7"),
        ("other-instance|secret-part", "the deploy key of other-instance"),
        ("project:team:app|secret-part", "a key of the kind 'project'"),
        ("preview:team:app|secret-part", "a key of the kind 'preview'"),
        ("secret-part and more", "neither an access token nor a deploy key"),
        ("secret-part\x1b[2J", "neither an access token nor a deploy key"),
        ("secret-pärt", "neither an access token nor a deploy key"),
    ],
)
def test_what_is_not_for_this_deployment_is_refused_before_it_goes_anywhere(text: str, says: str) -> None:
    with pytest.raises(UsageProblem, match=says) as caught:
        judged(text, URL)
    assert "secret-p" not in f"{caught.value} {caught.value.hint}"
