from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from heartbeat_cli.address import cloud_name, normalise_site_url, normalise_url, site_of
from heartbeat_cli.errors import SettingsProblem

# --- addresses


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://happy-animal-123.convex.cloud", "https://happy-animal-123.convex.cloud"),
        (" https://Happy-Animal-123.Convex.Cloud/ ", "https://happy-animal-123.convex.cloud"),
        ("HTTP://127.0.0.1:7210", "http://127.0.0.1:7210"),
        ("https://convex.example:443/", "https://convex.example"),
        ("http://[::1]:3210", "http://[::1]:3210"),
        ("http://bücher.example", "http://xn--bcher-kva.example"),
    ],
)
def test_an_address_has_one_form(text: str, url: str) -> None:
    assert normalise_url(text) == url
    assert normalise_url(url) == url


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "looks like https://"),
        ("happy-animal-123", "looks like https://"),
        ("127.0.0.1:7210", "looks like https://"),
        ("ws://127.0.0.1:7210", "looks like https://"),
        ("https://", "looks like https://"),
        ("http://host:port", "looks like https://"),
        ("http://host:99999", "looks like https://"),
        ("http://host:0", "looks like https://"),
        ("http://[::1", "looks like https://"),
        ("http://ho|st", "looks like https://"),
        ("http://-host", "looks like https://"),
        ("https://a b.example", "looks like https://"),
        ("https://x.convex.cloud/api", "use https://x.convex.cloud"),
        ("http://127.0.0.1:7210/api/query?x#y", "use http://127.0.0.1:7210"),
        ("https://x.convex.site", "use https://x.convex.cloud"),
        ("https://x.convex.site/hook", "use https://x.convex.cloud"),
        ("https://dashboard.convex.dev/t/team/project", "under Settings"),
        ("https://user:secret@host.example", "HEARTBEAT_TOKEN"),
        ("https://user:sec/ret@host.example", "looks like https://"),
    ],
)
def test_what_cannot_be_a_deployments_address_is_refused_with_what_to_write(text: str, says: str) -> None:
    with pytest.raises(SettingsProblem) as caught:
        normalise_url(text)

    assert says in str(caught.value.hint)
    assert "secret" not in str(caught.value)


PIECES = [
    "http",
    "https",
    "://",
    ":",
    "/",
    "@",
    "[",
    "]",
    "::1",
    "host",
    "443",
    "?",
    "#",
    "%",
    "é",
    "。",
    "user:pw@",
]
PIECED = st.lists(st.sampled_from([*PIECES, " "]), max_size=8).map("".join)


@given(text=st.text(max_size=40) | PIECED | PIECED.map("http://{}".format))
def test_any_text_at_all_is_an_address_in_its_one_form_or_a_settings_problem(text: str) -> None:
    try:
        url = normalise_url(text)
    except SettingsProblem as problem:
        assert problem.hint
    else:
        assert normalise_url(url) == url
        assert "@" not in url


def test_the_address_of_the_http_actions_has_one_form_too() -> None:
    assert (
        normalise_site_url(" HTTPS://Happy-Animal-123.Convex.Site/ ")
        == "https://happy-animal-123.convex.site"
    )
    assert normalise_site_url("http://127.0.0.1:3211") == "http://127.0.0.1:3211"
    for text, says in (
        ("https://happy-animal-123.convex.cloud", "use https://happy-animal-123.convex.site"),
        ("https://site.example/ping", "use https://site.example"),
        ("", "https://happy-animal-123.convex.site"),
    ):
        with pytest.raises(SettingsProblem) as caught:
            normalise_site_url(text)
        assert says in str(caught.value.hint)


def test_of_a_deployment_in_the_cloud_the_address_tells_its_name_and_its_other_address() -> None:
    url = "https://happy-animal-123.convex.cloud"
    assert (cloud_name(url), site_of(url)) == ("happy-animal-123", "https://happy-animal-123.convex.site")
    europe = "https://happy-animal-123.eu-west-1.convex.cloud"
    assert (cloud_name(europe), site_of(europe)) == (
        "happy-animal-123",
        "https://happy-animal-123.eu-west-1.convex.site",
    )
    for other in ("https://convex.cloud.example", "http://127.0.0.1:7210"):
        assert (cloud_name(other), site_of(other)) == (None, None)
