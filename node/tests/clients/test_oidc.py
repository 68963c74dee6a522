"""Logins at a real OIDC provider, with the browser's part done by plain requests."""

import re
import subprocess
import threading
import urllib.parse
import uuid

import hvac
import oidc_provider_mock
import pytest
import requests

from conftest import free_port, wait_for


@pytest.fixture(scope="module")
def provider():
    with oidc_provider_mock.run_server_in_thread() as server:
        url = f"http://localhost:{server.server_port}"
        groups = {"email": "alice@example.org", "groups": ["dev", "ops"]}
        assert requests.put(f"{url}/users/alice", json=groups, timeout=10).status_code == 204
        yield url


@pytest.fixture
def mount(cluster, provider):
    path = f"oidc-{uuid.uuid4().hex[:8]}"
    cluster.run("auth", "enable", f"-path={path}", "oidc")
    settings = [f"oidc_discovery_url={provider}", "oidc_client_id=arca", "oidc_client_secret=s/3?cret", "default_role=r"]
    cluster.run("write", f"auth/{path}/config", *settings)
    return path


def make_role(cluster, mount, *more):
    usual = [
        "user_claim=sub",
        "allowed_redirect_uris=http://localhost:8250/oidc/callback",
        "oidc_scopes=email",
        "token_ttl=10m",
    ]
    cluster.run("write", f"auth/{mount}/role/r", *usual, *more)


def visit(url, user="alice", follow=False):
    """What a user does in the browser: agree. Answers where the provider sends the browser, or what is there."""
    answer = requests.post(url, data={"sub": user}, allow_redirects=follow, timeout=30)
    return answer if follow else answer.headers["Location"]


def query(url):
    return {name: values[0] for name, values in urllib.parse.parse_qs(urllib.parse.urlsplit(url).query).items()}


def log_in(cluster, mount, come_back):
    """Logs in by the command line; `come_back` plays the browser that the provider sent to that URL of the client."""
    port = free_port()
    words = [cluster.bao, "login", "-method=oidc", f"-path={mount}", "-no-store", "-format=json"]
    words += ["skip_browser=true", f"port={port}", "listenaddress=127.0.0.1"]
    environment = {"HOME": str(cluster.home), "BAO_ADDR": cluster.nodes[1].url, "VAULT_ADDR": cluster.nodes[1].url}
    login = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    killer = threading.Timer(60, login.kill)
    killer.start()
    try:
        url = None
        for line in login.stderr:
            found = re.search(r"http://localhost:\d+/oauth2/authorize\S+", line)
            if found:
                url = found.group(0)
                break
        assert url, "the command line showed no URL"
        page = come_back(visit(without_mode(url)).replace("localhost", "127.0.0.1"))
        assert page.status_code == 200, page.text
        out, err = login.communicate(timeout=30)
    finally:
        killer.cancel()
        login.kill()
    assert login.returncode == 0, err
    return out


def test_the_command_line_logs_in(cluster, mount):
    make_role(cluster, mount, "groups_claim=groups", "claim_mappings=email=mail")
    out = log_in(cluster, mount, lambda back: requests.get(back, timeout=30))
    assert '"mail": "alice@example.org"' in out and '"role": "r"' in out and '"lease_duration": 600' in out, out


def post_back(url):
    """What a browser does if the provider has it post."""
    return requests.post(url.split("?")[0], data=query(url), timeout=30)


def has_posted(cluster, provider, mount):
    settings = [f"oidc_discovery_url={provider}", "oidc_client_id=arca", "oidc_client_secret=s/3?cret", "default_role=r"]
    cluster.run("write", f"auth/{mount}/config", "oidc_response_mode=form_post", *settings)


def without_mode(url):
    """The provider of these tests knows no other mode than to redirect."""
    return url.replace("&response_mode=form_post", "")


def test_the_command_line_hands_a_post_on(cluster, provider, mount):
    has_posted(cluster, provider, mount)
    make_role(cluster, mount)
    assert '"role": "r"' in log_in(cluster, mount, post_back)


def test_what_was_posted_goes_to_who_posted_it(cluster, provider, mount):
    """CVE-2026-33757: whoever began a login and had somebody else go through with it got that user's token."""
    has_posted(cluster, provider, mount)
    node = cluster.nodes[0].url
    callback = f"{node}/v1/auth/{mount}/oidc/callback"

    def begin():
        body = {"role": "r", "redirect_uri": callback, "client_nonce": "N"}
        begun = requests.post(f"{node}/v1/auth/{mount}/oidc/auth_url", json=body, timeout=30).json()["data"]
        return begun["auth_url"], query(begun["auth_url"])["state"]

    def poll(state):
        body = {"state": state, "client_nonce": "N"}
        return requests.post(f"{node}/v1/auth/{mount}/oidc/poll", json=body, timeout=30)

    make_role(cluster, mount, f"allowed_redirect_uris={callback}", "callback_mode=direct")
    url, state = begin()
    page = post_back(visit(without_mode(url)))
    assert page.status_code == 200 and "Confirm sign-in" in page.text, page.text
    stolen = requests.get(callback, params={"state": state, "confirmation": "1", "client_nonce": "N"}, timeout=30)
    assert stolen.status_code == 400 and poll(state).status_code == 400
    url, state = begin()
    page = post_back(visit(without_mode(url)))
    fields = dict(re.findall(r'name="(state|code|confirmation)" value="([^"]*)"', page.text))
    assert requests.get(callback, params=fields, timeout=30).status_code == 200
    assert poll(state).json()["auth"]["metadata"] == {"role": "r"}

    make_role(cluster, mount, f"allowed_redirect_uris={callback}")
    url, state = begin()
    page = post_back(visit(without_mode(url)))
    assert page.status_code == 200 and "data-code" in page.text, page.text
    stolen = requests.get(callback, params={"state": state, "client_nonce": "N"}, timeout=30)
    assert stolen.status_code == 400 and stolen.json()["errors"] == ["Arca login failed. No code or id_token received."]
    url, state = begin()
    code = re.search('data-code="([^"]+)"', post_back(visit(without_mode(url))).text).group(1)
    ended = requests.get(callback, params={"state": state, "client_nonce": "N", "code": code}, timeout=30)
    assert ended.json()["auth"]["metadata"] == {"role": "r"}


def test_a_login_ends_on_another_node_and_once(cluster, mount):
    make_role(cluster, mount)
    first, second = (hvac.Client(url=cluster.nodes[at].url).auth.jwt for at in (0, 2))
    begun = first.oidc_authorization_url_request(
        role="r", redirect_uri="http://localhost:9999/oidc/callback", path=mount
    )["data"]["auth_url"]
    asked = query(begun)
    assert asked["code_challenge_method"] == "S256" and asked["scope"] == "openid email"
    back = query(visit(begun))
    assert back["state"] == asked["state"]
    auth = second.oidc_callback(state=back["state"], nonce=asked["nonce"], code=back["code"], path=mount)["auth"]
    assert auth["metadata"] == {"role": "r"}
    looked_up = hvac.Client(url=cluster.nodes[0].url, token=auth["client_token"]).auth.token.lookup_self()["data"]
    assert looked_up["display_name"] == f"{mount}-alice" and looked_up["path"] == f"auth/{mount}/oidc/callback"
    for node in (first, second):
        with pytest.raises(hvac.exceptions.InvalidRequest, match="Expired or missing OAuth state"):
            node.oidc_callback(state=back["state"], nonce=asked["nonce"], code=back["code"], path=mount)


def test_a_login_survives_a_failover(cluster, mount):
    """Begun under one active node, ended under another."""
    make_role(cluster, mount)
    jwt = hvac.Client(url=cluster.nodes[0].url).auth.jwt
    uri = "http://localhost:8250/oidc/callback"
    begun = jwt.oidc_authorization_url_request(role="r", redirect_uri=uri, path=mount)["data"]["auth_url"]
    back = query(visit(begun))
    before = cluster.active()
    cluster.run("operator", "step-down", node=int(before))
    wait_for("another active node", lambda: cluster.active() != before)
    auth = jwt.oidc_callback(state=back["state"], nonce="", code=back["code"], path=mount)["auth"]
    assert auth["metadata"] == {"role": "r"}


def test_browsers_are_sent_back_only_where_the_role_says(cluster, mount):
    make_role(cluster, mount)
    jwt = hvac.Client(url=cluster.nodes[0].url).auth.jwt
    for uri in ("http://evil/oidc/callback", "http://localhost:8250/oidc/callback/x", "http://localhost@evil/oidc/callback"):
        answer = jwt.oidc_authorization_url_request(role="r", redirect_uri=uri, path=mount)
        assert answer["data"]["auth_url"] == ""


def test_a_code_of_another_login_is_refused(cluster, mount):
    """The ID token is of the login it was asked for, whoever brings its code."""
    make_role(cluster, mount)
    jwt = hvac.Client(url=cluster.nodes[0].url).auth.jwt
    uri = "http://localhost:8250/oidc/callback"
    mine, others = (
        jwt.oidc_authorization_url_request(role="r", redirect_uri=uri, path=mount)["data"]["auth_url"] for _ in range(2)
    )
    code = query(visit(others, "eve"))["code"]
    with pytest.raises(hvac.exceptions.InvalidRequest, match="invalid nonce"):
        jwt.oidc_callback(state=query(mine)["state"], nonce="", code=code, path=mount)


def test_a_denied_login_says_so(cluster, mount):
    make_role(cluster, mount)
    node = cluster.nodes[0].url
    jwt = hvac.Client(url=node).auth.jwt
    begun = jwt.oidc_authorization_url_request(
        role="r", redirect_uri="http://localhost:8250/oidc/callback", path=mount
    )["data"]["auth_url"]
    said = {"state": query(begun)["state"], "error": "access_denied", "error_description": "<script>"}
    answer = requests.get(f"{node}/v1/auth/{mount}/oidc/callback", params=said, timeout=30)
    assert answer.status_code == 400 and answer.json()["errors"] == ["Arca login failed. access_denied"]


def test_a_direct_login_is_confirmed_and_polled(cluster, mount):
    node = cluster.nodes[0].url
    callback = f"{node}/v1/auth/{mount}/oidc/callback"
    make_role(cluster, mount, f"allowed_redirect_uris={callback}", "callback_mode=direct", "poll_interval=1")
    begun = requests.post(
        f"{node}/v1/auth/{mount}/oidc/auth_url",
        json={"role": "r", "redirect_uri": callback, "client_nonce": "N"},
        timeout=30,
    ).json()["data"]

    def poll(nonce="N"):
        body = {"state": begun["state"], "client_nonce": nonce}
        return requests.post(f"{cluster.nodes[1].url}/v1/auth/{mount}/oidc/poll", json=body, timeout=30)

    assert poll().json()["errors"] == ["authorization_pending"]
    page = visit(begun["auth_url"], follow=True)
    assert page.status_code == 200 and "Confirm sign-in" in page.text and "127.0.0.1" in page.text
    assert page.headers["X-Frame-Options"] == "DENY" and "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert poll().json()["errors"] == ["authorization_pending"]
    fields = dict(re.findall(r'name="(state|code|confirmation)" value="([^"]*)"', page.text))
    done = requests.get(callback, params=fields, timeout=30)
    assert done.status_code == 200 and "You can now close this window" in done.text
    assert poll("M").status_code == 400
    assert poll().json()["auth"]["metadata"] == {"role": "r"}
    assert poll().status_code == 400
