"""Logins of service accounts, against a server that plays the Kubernetes API."""

import json
import time
import uuid

import hvac
import pytest

from https_server import Server, Signer, now

SIGNER = Signer()


class Cluster:
    """What the API says of tokens."""

    def __init__(self, directory):
        self.says = "good"
        self.server = Server(directory, self.answer)

    def answer(self, method, path, headers, body):
        if path.startswith("/api/v1/namespaces/"):
            return 200, {"kind": "Namespace", "metadata": {"name": "n", "labels": {"env": "prod"}}}
        assert (method, path) == ("POST", "/apis/authentication.k8s.io/v1/tokenreviews")
        spec = json.loads(body)["spec"]
        status = {"authenticated": True, "audiences": spec.get("audiences", [])}
        status["user"] = {"username": "system:serviceaccount:n:a", "uid": "U", "groups": ["system:serviceaccounts"]}
        if self.says == "unauthenticated":
            status = {"authenticated": False, "error": "token is no good", "user": {}}
        if self.says == "another":
            status["user"]["username"] = "system:serviceaccount:n:b"
        if self.says == "late":
            time.sleep(12)
        if self.says == "500":
            return 500, {"kind": "Status", "message": "boom"}
        return 201, {"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "status": status}

    def bearer(self):
        """By whose token it was asked last."""
        headers = {name.lower(): value for name, value in self.server.asked[-1][2].items()}
        return headers["authorization"].removeprefix("Bearer ")


@pytest.fixture
def kubernetes(tmp_path):
    cluster = Cluster(tmp_path)
    yield cluster
    cluster.server.stop()


@pytest.fixture
def mount(cluster, kubernetes):
    path = f"k8s-{uuid.uuid4().hex[:8]}"
    cluster.run("auth", "enable", f"-path={path}", "kubernetes")
    configure(cluster, kubernetes, path)
    role = ["bound_service_account_names=a", "bound_service_account_namespaces=n", "token_policies=default", "ttl=10m"]
    cluster.run("write", f"auth/{path}/role/r", *role)
    return path


def configure(cluster, kubernetes, mount, *more):
    ca = kubernetes.server.ca_pem
    cluster.run("write", f"auth/{mount}/config", f"kubernetes_host={kubernetes.server.url}", f"kubernetes_ca_cert={ca}", *more)


def token(name="a", namespace="n", signer=SIGNER, **changes):
    account = {"namespace": namespace, "serviceaccount": {"name": name, "uid": "U"}}
    usual = {"aud": ["api"], "exp": now() + 600, "iat": now(), "nbf": now(), "iss": "https://k", "kubernetes.io": account}
    return signer.token({**usual, **changes})


def log_in(cluster, mount, jwt, node=0):
    client = hvac.Client(url=cluster.nodes[node].url)
    return client.auth.kubernetes.login(role="r", jwt=jwt, mount_point=mount, use_token=False)["auth"]


def test_an_account_logs_in_and_its_token_is_renewed(cluster, mount, kubernetes):
    for node in range(len(cluster.nodes)):
        auth = log_in(cluster, mount, token(), node)
        assert auth["metadata"] == {
            "role": "r",
            "service_account_name": "a",
            "service_account_namespace": "n",
            "service_account_secret_name": "",
            "service_account_uid": "U",
        }
        assert auth["lease_duration"] == 600
    client = hvac.Client(url=cluster.nodes[0].url, token=auth["client_token"])
    assert client.auth.token.lookup_self()["data"]["display_name"] == f"{mount}-n-a"
    asked = len(kubernetes.server.asked)
    client.auth.token.renew_self()
    assert len(kubernetes.server.asked) == asked + 1
    kubernetes.says = "unauthenticated"
    with pytest.raises(hvac.exceptions.Forbidden, match="during renewal"):
        client.auth.token.renew_self()


def test_the_reviewer_asks_if_there_is_one(cluster, mount, kubernetes):
    jwt = token()
    log_in(cluster, mount, jwt)
    assert kubernetes.bearer() == jwt
    configure(cluster, kubernetes, mount, "token_reviewer_jwt=reviewer")
    log_in(cluster, mount, jwt)
    assert kubernetes.bearer() == "reviewer"
    config = cluster.json("read", f"auth/{mount}/config")["data"]
    assert config["token_reviewer_jwt_set"] is True and "reviewer" not in json.dumps(config).replace("reviewer_jwt", "")


def test_what_the_api_does_not_stand_by_is_refused(cluster, mount, kubernetes):
    for says in ("unauthenticated", "another"):
        kubernetes.says = says
        with pytest.raises(hvac.exceptions.Forbidden, match="permission denied"):
            log_in(cluster, mount, token())
    for says in ("500", "late"):
        kubernetes.says = says
        with pytest.raises(hvac.exceptions.BadGateway):
            log_in(cluster, mount, token())
    kubernetes.says = "good"
    assert log_in(cluster, mount, token())["client_token"]


def test_accounts_and_tokens_that_do_not_fit(cluster, mount, kubernetes):
    configure(cluster, kubernetes, mount, f"pem_keys={SIGNER.pem}")
    cluster.run("write", f"auth/{mount}/role/r", "audience=api")
    assert log_in(cluster, mount, token())["client_token"]
    bad = {
        "service account name not authorized": token(name="b"),
        "namespace not authorized": token(namespace="m"),
        "audience claim does not match": token(aud=["other"]),
        "token is expired": token(exp=now() - 100),
        "permission denied": token(signer=Signer()),
    }
    asked = len(kubernetes.server.asked)
    for why, jwt in bad.items():
        with pytest.raises(hvac.exceptions.Forbidden, match=why):
            log_in(cluster, mount, jwt)
    assert len(kubernetes.server.asked) == asked
    with pytest.raises(hvac.exceptions.InvalidRequest):
        hvac.Client(url=cluster.nodes[0].url).auth.kubernetes.login(role="none", jwt=token(), mount_point=mount)


def test_settings_and_roles_by_hvac(cluster, mount, kubernetes):
    client = hvac.Client(url=cluster.nodes[0].url, token=cluster.token).auth.kubernetes
    client.configure(
        kubernetes_host=kubernetes.server.url,
        kubernetes_ca_cert=kubernetes.server.ca_pem,
        token_reviewer_jwt="reviewer",
        mount_point=mount,
    )
    assert client.read_config(mount_point=mount)["kubernetes_host"] == kubernetes.server.url
    client.create_role(
        name="labelled",
        bound_service_account_names=["*"],
        bound_service_account_namespaces=["x"],
        alias_name_source="serviceaccount_name",
        mount_point=mount,
    )
    selector = json.dumps({"matchLabels": {"env": "prod"}})
    cluster.run("write", f"auth/{mount}/role/labelled", f"bound_service_account_namespace_selector={selector}")
    assert client.read_role(name="labelled", mount_point=mount)["alias_name_source"] == "serviceaccount_name"
    assert client.list_roles(mount_point=mount)["keys"] == ["labelled", "r"]
    anybody = hvac.Client(url=cluster.nodes[0].url)
    assert anybody.auth.kubernetes.login(role="labelled", jwt=token(), mount_point=mount)["auth"]["client_token"]
    client.delete_role(name="labelled", mount_point=mount)
    assert client.list_roles(mount_point=mount)["keys"] == ["r"]
