"""Logins with signed tokens, by hvac and by the `bao` command line."""

import uuid

import hvac
import pytest

from https_server import Server, Signer, now


@pytest.fixture
def mount(cluster):
    path = f"jwt-{uuid.uuid4().hex[:8]}"
    cluster.run("auth", "enable", f"-path={path}", "jwt")
    return path


@pytest.fixture
def jwt(cluster):
    return hvac.Client(url=cluster.nodes[0].url, token=cluster.token).auth.jwt


def claims(**changes):
    usual = {"sub": "alice", "aud": "app", "iss": "me", "iat": now(), "nbf": now(), "exp": now() + 300}
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}


def make_role(jwt, mount, **more):
    settings = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["app"], "allowed_redirect_uris": []}
    jwt.create_role(name="r", path=mount, **{**settings, "token_policies": ["default"], **more})


def log_in(cluster, mount, token, node=0):
    client = hvac.Client(url=cluster.nodes[node].url)
    return client.auth.jwt.jwt_login(role="r", jwt=token, path=mount, use_token=False)["auth"]


@pytest.mark.parametrize("alg", ["RS256", "RS512", "PS384", "ES256", "ES384", "ES512"])
def test_keys_in_the_settings(cluster, jwt, mount, alg, tmp_path):
    signer = Signer(alg)
    (tmp_path / "key.pem").write_text(signer.pem)
    cluster.run("write", f"auth/{mount}/config", f"jwt_validation_pubkeys=@{tmp_path}/key.pem", "bound_issuer=me")
    make_role(jwt, mount, claim_mappings={"mail": "email"}, token_ttl="10m", token_no_default_policy=False)
    for node in range(len(cluster.nodes)):
        auth = log_in(cluster, mount, signer.token(claims(mail="a@b")), node)
        assert auth["metadata"] == {"role": "r", "email": "a@b"}
        assert auth["lease_duration"] == 600 and auth["token_policies"] == ["default"]
    looked_up = hvac.Client(url=cluster.nodes[0].url, token=auth["client_token"]).auth.token.lookup_self()["data"]
    assert looked_up["display_name"] == f"{mount}-alice" and looked_up["path"] == f"auth/{mount}/login"
    done = cluster.run("write", "-field=token", f"auth/{mount}/login", "role=r", f"jwt={signer.token(claims())}")
    renewed = cluster.json("token", "renew", token=done.stdout.strip())
    assert renewed["auth"]["lease_duration"] == 600


def test_settings_and_roles_as_they_are_read(cluster, jwt, mount):
    signer = Signer()
    jwt.configure(jwt_validation_pubkeys=[signer.pem], default_role="r", path=mount)
    config = jwt.read_config(path=mount)["data"]
    assert config["default_role"] == "r" and config["jwt_validation_pubkeys"] == [signer.pem.strip()]
    make_role(jwt, mount, bound_claims={"team": ["x", "y"]}, bound_claims_type="glob", groups_claim="groups")
    role = jwt.read_role(name="r", path=mount)["data"]
    assert role["bound_claims"] == {"team": ["x", "y"]} and role["groups_claim"] == "groups"
    assert jwt.list_roles(path=mount)["data"]["keys"] == ["r"]
    jwt.delete_role(name="r", path=mount)
    with pytest.raises(hvac.exceptions.InvalidPath):
        jwt.read_role(name="r", path=mount)


def test_bad_tokens(cluster, jwt, mount):
    signer = Signer()
    jwt.configure(jwt_validation_pubkeys=[signer.pem], bound_issuer="me", path=mount)
    make_role(jwt, mount, bound_claims={"team": "x"})
    good = signer.token(claims(team="x"))
    assert log_in(cluster, mount, good)["client_token"]
    bad = {
        "invalid issuer": signer.token(claims(team="x", iss="you")),
        "audience claim does not match": signer.token(claims(team="x", aud="application")),
        "token is expired": signer.token(claims(team="x", exp=now() - 100)),
        "token not yet valid": signer.token(claims(team="x", nbf=now() + 200)),
        "does not match any associated bound claim values": signer.token(claims(team="z")),
        "is missing": signer.token(claims()),
        "no known key": Signer().token(claims(team="x")),
        "unexpected algorithm": signer.token(claims(team="x"), {"alg": "none"}),
        "three parts": good.rsplit(".", 1)[0],
    }
    for why, token in bad.items():
        with pytest.raises(hvac.exceptions.InvalidRequest, match=why):
            log_in(cluster, mount, token)


def test_keys_at_a_url(cluster, jwt, mount, tmp_path):
    """A new key is found as soon as a token names it; the authority that was given is the only one trusted."""
    old, new = Signer(), Signer("ES256")
    keys = {"keys": [old.jwk("old")]}
    server = Server(tmp_path, lambda *_: (200, keys))
    try:
        with pytest.raises(hvac.exceptions.InvalidRequest, match="error checking jwks URL"):
            jwt.configure(jwks_url=f"{server.url}/jwks", path=mount)
        jwt.configure(jwks_url=f"{server.url}/jwks", jwks_ca_pem=server.ca_pem, path=mount)
        make_role(jwt, mount)
        assert log_in(cluster, mount, old.token(claims(), {"kid": "old"}))["client_token"]
        asked = len(server.asked)
        for node in range(len(cluster.nodes)):
            log_in(cluster, mount, old.token(claims(), {"kid": "old"}), node)
        assert len(server.asked) == asked, "keys are kept"
        keys["keys"].append(new.jwk("new"))
        assert log_in(cluster, mount, new.token(claims(), {"kid": "new"}))["client_token"]
        for _ in range(20):
            with pytest.raises(hvac.exceptions.InvalidRequest):
                log_in(cluster, mount, new.token(claims(), {"kid": "unknown"}))
        assert len(server.asked) <= asked + 3, "unknown keys are no flood"
    finally:
        server.stop()
