"""Databases by hvac and by the `bao` command line, with logins at real servers."""

import base64
import concurrent.futures
import contextlib
import datetime
import json
import os
import signal
import time
import uuid

import hvac
import pytest

from databases import MariaDb, Postgres, Proxy, wait_until

PG_USER = [
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}'; "
    'GRANT SELECT ON ALL TABLES IN SCHEMA public TO "{{name}}";'
]
MY_USER = ["CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'; GRANT SELECT ON *.* TO '{{name}}'@'%';"]


@pytest.fixture(scope="module")
def postgres():
    server = Postgres()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def mariadb():
    server = MariaDb()
    yield server
    server.stop()


@pytest.fixture(params=["postgres", "mariadb"])
def server(request):
    return request.getfixturevalue(request.param)


@pytest.fixture
def mount(cluster):
    path = f"database-{uuid.uuid4().hex[:8]}"
    cluster.run("secrets", "enable", f"-path={path}", "database")
    return path


@pytest.fixture
def databases(client):
    return client.secrets.database


def plugin(server):
    return "postgresql-database-plugin" if isinstance(server, Postgres) else "mysql-database-plugin"


def rotated_at(credential):
    """When a static role's password last changed. Zeros at the end of a second's fraction are left out, so text does not sort."""
    return datetime.datetime.fromisoformat(credential["last_vault_rotation"])


def creation(server):
    return PG_USER if isinstance(server, Postgres) else MY_USER


def connect(client, mount, server, name="db", **options):
    settings = {
        "plugin_name": plugin(server), "connection_url": server.url(), "allowed_roles": ["*"],
        "username": server.root, "password": server.root_password, **options,
    }  # fmt: skip
    return client.adapter.post(f"/v1/{mount}/config/{name}", json=settings)


def role(client, mount, server, name="r", **options):
    settings = {"db_name": "db", "creation_statements": creation(server), "default_ttl": "1h", "max_ttl": "2h", **options}
    client.adapter.post(f"/v1/{mount}/roles/{name}", json=settings)


def creds(client, mount, name="r"):
    return client.adapter.get(f"/v1/{mount}/creds/{name}")


def login(server, answer):
    return server.login(answer["data"]["username"], answer["data"]["password"])


def test_the_command_line_issues_and_revokes(cluster, server, mount):
    cluster.run(
        "write", f"{mount}/config/db", f"plugin_name={plugin(server)}", f"connection_url={server.url()}",
        "allowed_roles=r*", f"username={server.root}", f"password={server.root_password}",
    )  # fmt: skip
    cluster.run("write", f"{mount}/roles/reader", "db_name=db", f"creation_statements={creation(server)[0]}", "default_ttl=1h")
    answer = cluster.json("read", f"{mount}/creds/reader")
    assert answer["lease_duration"] == 3600 and answer["renewable"] and answer["data"]["username"].startswith("v-")
    assert login(server, answer)
    cluster.run("lease", "renew", answer["lease_id"])
    assert login(server, answer)
    cluster.run("lease", "revoke", answer["lease_id"])
    wait_until("the user to be gone", lambda: answer["data"]["username"] not in server.users(), 20)
    assert not login(server, answer)
    refused = cluster.run("read", f"{mount}/creds/nope", check=False)
    assert refused.returncode == 2 and "unknown role: nope" in refused.stderr


def test_hvac_knows_every_route(cluster, server, mount, client, databases):
    databases.configure(
        name="db", plugin_name=plugin(server), allowed_roles=["r"], mount_point=mount,
        connection_url=server.url(), username=server.root, password=server.root_password,
    )  # fmt: skip
    assert databases.list_connections(mount_point=mount)["data"]["keys"] == ["db"]
    shown = databases.read_connection("db", mount_point=mount)["data"]
    assert shown["connection_details"] == {"connection_url": server.url(), "username": server.root}
    databases.reset_connection("db", mount_point=mount)
    databases.create_role("r", db_name="db", creation_statements=creation(server), default_ttl=60, mount_point=mount)
    assert databases.list_roles(mount_point=mount)["data"]["keys"] == ["r"]
    assert databases.read_role("r", mount_point=mount)["data"]["default_ttl"] == 60
    answer = databases.generate_credentials("r", mount_point=mount)
    assert login(server, answer)
    client.sys.revoke_lease(answer["lease_id"])
    wait_until("the user to be gone", lambda: not login(server, answer), 20)
    databases.create_role("q", db_name="db", creation_statements=creation(server), mount_point=mount)
    with pytest.raises(hvac.exceptions.InvalidRequest, match='"q" is not an allowed role'):
        databases.generate_credentials("q", mount_point=mount)
    databases.delete_role("q", mount_point=mount)
    databases.delete_connection("db", mount_point=mount)
    with pytest.raises(hvac.exceptions.InvalidPath) as gone:
        databases.read_connection("db", mount_point=mount)
    assert gone.value.errors == [] and gone.value.json == {"errors": []}


def test_a_user_ends_with_its_lease(cluster, server, mount, client):
    connect(client, mount, server)
    role(client, mount, server, default_ttl="3s")
    answer = creds(client, mount)
    assert answer["lease_duration"] == 3 and login(server, answer)
    wait_until("the user to be gone", lambda: answer["data"]["username"] not in server.users(), 30)
    assert not login(server, answer)


def test_renewing_moves_the_expiration(postgres, mount, client):
    connect(client, mount, postgres)
    role(client, mount, postgres, default_ttl="60s", max_ttl="1h")
    answer = creds(client, mount)
    ask = f"SELECT extract(epoch FROM rolvaliduntil - now())::int FROM pg_roles WHERE rolname = '{answer['data']['username']}'"
    assert 55 <= int(postgres.ask(ask).stdout) <= 66
    renewed = client.sys.renew_lease(answer["lease_id"], increment=1800)
    assert renewed["lease_duration"] == 1800
    assert 1790 <= int(postgres.ask(ask).stdout) <= 1806
    capped = client.sys.renew_lease(answer["lease_id"], increment=7200)
    assert capped["lease_duration"] <= 3600
    assert int(postgres.ask(ask).stdout) <= 3606


def test_sessions_end_with_the_user(server, mount, client):
    connect(client, mount, server)
    role(client, mount, server)
    answer = creds(client, mount)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        sleep = "SELECT pg_sleep(50)" if isinstance(server, Postgres) else "SELECT SLEEP(50)"
        running = pool.submit(server.ask, sleep, answer["data"]["username"], answer["data"]["password"])
        time.sleep(1)
        begun = time.monotonic()
        client.sys.revoke_lease(answer["lease_id"])
        running.result()
        assert time.monotonic() - begun < 30


def test_revoking_a_prefix_removes_everybody(server, mount, client):
    connect(client, mount, server)
    role(client, mount, server)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        names = [answer["data"]["username"] for answer in pool.map(lambda _: creds(client, mount), range(12))]
    assert len(set(names)) == 12 and set(names) <= set(server.users())
    client.sys.revoke_prefix(f"{mount}/creds/r")
    wait_until("all to be gone", lambda: not set(names) & set(server.users()))


def static_user(server):
    name = f"static-{uuid.uuid4().hex[:8]}"
    sql = f'CREATE ROLE "{name}" LOGIN' if isinstance(server, Postgres) else f"CREATE USER '{name}'@'%'"
    assert server.ask(sql).returncode == 0
    return name


def test_static_roles_rotate(server, mount, client, databases):
    connect(client, mount, server)
    name = static_user(server)
    databases.create_static_role("s", db_name="db", username=name, rotation_statements=[], rotation_period="1h", mount_point=mount)
    first = databases.get_static_credentials("s", mount_point=mount)["data"]
    assert first["username"] == name and 3595 <= first["ttl"] <= 3600 and first["rotation_period"] == 3600
    assert server.login(name, first["password"])
    databases.rotate_static_role_credentials("s", mount_point=mount)
    second = databases.get_static_credentials("s", mount_point=mount)["data"]
    assert second["password"] != first["password"] and rotated_at(second) > rotated_at(first)
    assert server.login(name, second["password"]) and not server.login(name, first["password"])
    assert databases.list_static_roles(mount_point=mount)["data"]["keys"] == ["s"]
    assert databases.read_static_role("s", mount_point=mount)["data"]["rotation_period"] == 3600
    databases.delete_static_role("s", mount_point=mount)
    assert server.login(name, second["password"])


def test_static_roles_rotate_by_themselves(cluster, server, mount, client):
    connect(client, mount, server)
    name = static_user(server)
    client.adapter.post(f"/v1/{mount}/static-roles/s", json={"db_name": "db", "username": name, "rotation_period": 5})
    first = client.adapter.get(f"/v1/{mount}/static-creds/s")["data"]["password"]

    def current():
        return client.adapter.get(f"/v1/{mount}/static-creds/s")["data"]["password"]

    wait_until("another password", lambda: current() != first, 130)
    assert server.login(name, current()) and not server.login(name, first)


def test_a_static_role_that_cannot_be_set_is_not_made(server, mount, client):
    connect(client, mount, server)
    body = {"db_name": "db", "username": "nosuchuser", "rotation_schedule": "0 0 * * *", "rotation_window": "2h"}
    with pytest.raises(hvac.exceptions.VaultError, match="error setting credentials"):
        client.adapter.post(f"/v1/{mount}/static-roles/s", json=body)
    with pytest.raises(hvac.exceptions.InvalidPath):
        client.adapter.get(f"/v1/{mount}/static-roles/s")
    body["username"] = static_user(server)
    client.adapter.post(f"/v1/{mount}/static-roles/s", json=body)
    shown = client.adapter.get(f"/v1/{mount}/static-creds/s")["data"]
    assert shown["rotation_schedule"] == "0 0 * * *" and shown["rotation_window"] == 7200
    assert 0 < shown["ttl"] <= 86400 and server.login(body["username"], shown["password"])


def test_the_root_password_rotates(server, mount, client):
    name = f"root_{uuid.uuid4().hex[:8]}"
    if isinstance(server, Postgres):
        made = server.ask(f"CREATE ROLE {name} SUPERUSER LOGIN PASSWORD 'first'")
    else:
        made = server.ask(f"CREATE USER {name} IDENTIFIED BY 'first'; GRANT ALL ON *.* TO {name} WITH GRANT OPTION")
    assert made.returncode == 0
    connect(client, mount, server, username=name, password="first")
    role(client, mount, server)
    assert login(server, creds(client, mount))
    client.adapter.post(f"/v1/{mount}/rotate-root/db")
    assert not server.login(name, "first")
    assert login(server, creds(client, mount))
    shown = json.dumps(client.adapter.get(f"/v1/{mount}/config/db"))
    assert "password\"" not in shown and "first" not in shown


def test_odd_passwords_arrive_as_they_are(server, mount, client):
    """Passwords that would end a quotation, were they not escaped."""
    rules = 'length = 24\nrule "charset" { charset = "\'\\"\\\\$;`-{}%" min-chars = 12 }\nrule "charset" { charset = "ab" }'
    client.adapter.put(f"/v1/sys/policies/password/{mount}", json={"policy": rules})
    connect(client, mount, server, password_policy=mount)
    role(client, mount, server)
    for _ in range(5):
        answer = creds(client, mount)
        assert login(server, answer), answer
        client.sys.revoke_lease(answer["lease_id"])


def test_names_that_would_inject_make_no_user(cluster, server, mount, client):
    connect(client, mount, server, username_template="v-{{.DisplayName}}-{{random 8}}")
    role(client, mount, server)
    before = server.users()
    for name in ["x'; DROP", 'x"; DROP', "x`", "x\\", "x$$", "x;y"]:
        made = client.auth.token.create(display_name=name, policies=["root"])["auth"]
        other = hvac.Client(url=client.url, token=made["client_token"])
        try:
            answer = creds(other, mount)
        except hvac.exceptions.InvalidRequest as refused:
            assert "the username may hold" in str(refused)
        else:
            # The display name was made harmless when the token was.
            assert not set(answer["data"]["username"]) & set("'\"`\\$;")
            other.sys.revoke_lease(answer["lease_id"])
    wait_until("nobody to be left", lambda: set(server.users()) <= set(before))


def test_an_empty_revocation_statement_is_none(server, mount, client):
    """Vault 1.0.1: it ran as nothing, and counted as done."""
    connect(client, mount, server)
    for statements in ([""], [" ; "], ["-- nothing"]):
        role(client, mount, server, revocation_statements=statements)
        answer = creds(client, mount)
        client.sys.revoke_lease(answer["lease_id"])
        wait_until("the user to be gone", lambda: answer["data"]["username"] not in server.users(), 20)


def test_schemas_with_odd_names_are_quoted(postgres, mount, client):
    """CVE-2026-39946."""
    assert postgres.ask('CREATE SCHEMA "a"";drop table keep --"; CREATE TABLE "a"";drop table keep --".t (x int)').returncode == 0
    assert postgres.ask("CREATE TABLE keep (x int); CREATE ROLE other; GRANT SELECT ON keep TO other").returncode == 0
    connect(client, mount, postgres)
    grant = 'GRANT SELECT ON ALL TABLES IN SCHEMA "a"";drop table keep --" TO "{{name}}"'
    usage = 'GRANT USAGE ON SCHEMA "a"";drop table keep --" TO "{{name}}"'
    role(client, mount, postgres, creation_statements=[*PG_USER, grant, usage])
    answer = creds(client, mount)
    assert login(postgres, answer)
    client.sys.revoke_lease(answer["lease_id"])
    wait_until("the user to be gone", lambda: answer["data"]["username"] not in postgres.users(), 20)
    assert postgres.ask("SELECT has_table_privilege('other', 'keep', 'SELECT')").stdout.strip() == "t"


def test_no_password_in_errors_and_logs(cluster, server, mount, client):
    """Vault 0.10.0: the error about a bad connection URL held the password."""
    canary = f"canary{uuid.uuid4().hex}"
    for url in [f"::{canary}", f"postgresql://u:{canary}@[h/x", f"u:{canary}@tcp(x", f"host=h password='{canary}"]:
        with pytest.raises(hvac.exceptions.InvalidRequest) as refused:
            connect(client, mount, server, connection_url=url, password=canary)
        assert canary not in str(refused.value)
    with pytest.raises(hvac.exceptions.InvalidRequest) as refused:
        connect(client, mount, server, password=canary)
    assert "error verifying connection" in str(refused.value) and canary not in str(refused.value)
    connect(client, mount, server)
    role(client, mount, server, creation_statements=["nonsense '{{password}}' {{name}}"])
    with pytest.raises(hvac.exceptions.VaultError):
        creds(client, mount)
    for node in cluster.nodes:
        assert canary not in node.log.read_text()


def test_certificates_of_postgres_are_verified(postgres, mount, client):
    """CVE-2021-27400, for PostgreSQL."""
    by_name = postgres.url(query="sslmode=verify-full").replace("127.0.0.1", "localhost")
    by_address = postgres.url(query="sslmode=verify-full")
    connect(client, mount, postgres, connection_url=by_name, tls_ca=postgres.ca)
    role(client, mount, postgres)
    assert login(postgres, creds(client, mount))
    connect(client, mount, postgres, connection_url=by_address.replace("verify-full", "verify-ca"), tls_ca=postgres.ca)
    for url, ca in [(by_address, postgres.ca), (by_name, postgres.other_ca), (by_name.replace("full", "ca"), postgres.other_ca)]:
        with pytest.raises(hvac.exceptions.InvalidRequest, match="error verifying connection"):
            connect(client, mount, postgres, connection_url=url, tls_ca=ca)


def test_certificates_of_mariadb_are_verified(mariadb, mount, client):
    """CVE-2021-27400, for MariaDB."""
    by_name, by_address = (mariadb.url(host=host, query="?tls=true") for host in ("localhost", "127.0.0.1"))
    connect(client, mount, mariadb, connection_url=by_name, tls_ca=mariadb.ca)
    role(client, mount, mariadb)
    assert login(mariadb, creds(client, mount))
    connect(client, mount, mariadb, connection_url=by_address, tls_ca=mariadb.ca, tls_server_name="localhost")
    for url, ca, name in [(by_address, mariadb.ca, ""), (by_name, mariadb.other_ca, ""), (by_name, mariadb.ca, "other")]:
        with pytest.raises(hvac.exceptions.InvalidRequest, match="error verifying connection"):
            connect(client, mount, mariadb, connection_url=url, tls_ca=ca, tls_server_name=name)


def test_a_database_that_hangs_holds_up_nobody_else(cluster, postgres, mariadb, mount, client):
    proxy = Proxy(postgres.port)
    connect(client, mount, postgres, connection_url=postgres.url(port=proxy.port))
    role(client, mount, postgres)
    connect(client, mount, mariadb, name="other")
    role(client, mount, mariadb, name="o", db_name="other")
    before = set(postgres.users())
    revoked = creds(client, mount)
    proxy.hold()
    slow = hvac.Client(url=client.url, token=client.token, timeout=80)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        hanging = [pool.submit(creds, slow, mount) for _ in range(6)]
        for _ in range(3):
            begun = time.monotonic()
            assert login(mariadb, creds(client, mount, "o"))
            assert time.monotonic() - begun < 5
        for asked in hanging:
            with pytest.raises(hvac.exceptions.VaultError):
                asked.result()
    proxy.release()
    wait_until("it to be let in again", lambda: login(postgres, creds(client, mount)))
    client.sys.revoke_prefix(f"{mount}/creds/r")
    wait_until("nobody to be left", lambda: set(postgres.users()) <= before, 200)
    assert not login(postgres, revoked)


def test_a_server_that_stops_and_goes_on_leaves_nobody(cluster, mariadb, mount, client):
    connect(client, mount, mariadb)
    role(client, mount, mariadb)
    before = set(mariadb.users())
    first = creds(client, mount)
    os.kill(mariadb.process.pid, signal.SIGSTOP)
    try:
        slow = hvac.Client(url=client.url, token=client.token, timeout=80)
        with pytest.raises(hvac.exceptions.VaultError):
            creds(slow, mount)
    finally:
        os.kill(mariadb.process.pid, signal.SIGCONT)
    wait_until("it to be let in again", lambda: login(mariadb, creds(client, mount)))
    client.sys.revoke_lease(first["lease_id"])
    client.sys.revoke_prefix(f"{mount}/creds/r")
    wait_until("nobody to be left", lambda: set(mariadb.users()) <= before, 200)


def rotate_static(client, mount, **changes):
    client.adapter.post(f"/v1/{mount}/static-roles/s", json=changes)
    client.adapter.post(f"/v1/{mount}/rotate-role/s")


def test_a_password_that_may_be_set_is_found_by_logging_in(server, mount, client):
    """The database has set it and did not say so, and then refuses to set it once more."""
    connect(client, mount, server)
    name = static_user(server)
    if isinstance(server, Postgres):
        change, end = "ALTER ROLE \"{{name}}\" PASSWORD '{{password}}'", "COMMIT"
        refuse = "DO $$ BEGIN RAISE EXCEPTION 'used before'; END $$"
    else:
        change, end, refuse = "ALTER USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'", "nonsense", "nonsense"
    body = {"db_name": "db", "username": name, "rotation_period": "1h"}
    client.adapter.post(f"/v1/{mount}/static-roles/s", json=body)
    first = client.adapter.get(f"/v1/{mount}/static-creds/s")["data"]["password"]
    with pytest.raises(hvac.exceptions.VaultError, match="unable to finish rotating"):
        rotate_static(client, mount, rotation_statements=[change, end])
    assert not server.login(name, first)
    rotate_static(client, mount, rotation_statements=[refuse])
    second = client.adapter.get(f"/v1/{mount}/static-creds/s")["data"]["password"]
    assert second != first and server.login(name, second)
    # Without an attempt before it a refusal is one.
    with pytest.raises(hvac.exceptions.VaultError, match="unable to finish rotating"):
        rotate_static(client, mount, rotation_statements=[refuse])
    rotate_static(client, mount, rotation_statements=[])
    third = client.adapter.get(f"/v1/{mount}/static-creds/s")["data"]["password"]
    assert third != second and server.login(name, third)


def test_static_roles_have_any_name(server, mount, client):
    connect(client, mount, server)
    for at, name in enumerate(["svc$app", "é1", "a'b", 'a"b', "a\\b", "a\\'b"]):
        name += uuid.uuid4().hex[:8]
        if isinstance(server, Postgres):
            made = server.ask('CREATE ROLE "{}" LOGIN'.format(name.replace('"', '""')))
        else:
            made = server.ask("CREATE USER '{}'@'%'".format(name.replace("\\", "\\\\").replace("'", "''")))
        assert made.returncode == 0, made.stderr
        body = {"db_name": "db", "username": name, "rotation_period": "1h"}
        client.adapter.post(f"/v1/{mount}/static-roles/s{at}", json=body)
        shown = client.adapter.get(f"/v1/{mount}/static-creds/s{at}")["data"]
        assert shown["username"] == name and server.login(name, shown["password"])


def test_the_connections_own_user_is_left_to_rotate_root(server, mount, client):
    connect(client, mount, server)
    body = {"db_name": "db", "username": server.root, "rotation_period": "1h"}
    with pytest.raises(hvac.exceptions.InvalidRequest, match="that of the connection itself"):
        client.adapter.post(f"/v1/{mount}/static-roles/s", json=body)
    fixed = server.url().replace("{{password}}", server.root_password.replace(" ", "%20"))
    if isinstance(server, MariaDb):
        fixed = server.url().replace("{{password}}", server.root_password)
    connect(client, mount, server, connection_url=fixed)
    with pytest.raises(hvac.exceptions.InvalidRequest, match="must log in with"):
        client.adapter.post(f"/v1/{mount}/rotate-root/db")
    assert server.login(server.root, server.root_password)


def test_what_statements_set_in_a_session_ends_with_them(server, mount, client):
    connect(client, mount, server, max_open_connections=1)
    weak = f"weak_{uuid.uuid4().hex[:8]}"
    if isinstance(server, Postgres):
        assert server.ask(f"CREATE ROLE {weak}").returncode == 0
        more = [f"SET ROLE {weak}; SET search_path = nowhere"]
        ask = "DO $$ BEGIN IF current_user <> session_user OR current_setting('search_path') = 'nowhere' THEN RAISE 'left'; END IF; END $$"
    else:
        assert server.ask(f"CREATE ROLE {weak}; GRANT {weak} TO {server.root}; CREATE DATABASE {weak}").returncode == 0
        more = [f"SET ROLE {weak}; SET sql_mode = 'NO_BACKSLASH_ESCAPES'; USE {weak}"]
        ask = "SET @left = IF(CURRENT_ROLE() IS NULL AND DATABASE() IS NULL AND @@sql_mode NOT LIKE '%NO_BACKSLASH%' AND @@lock_wait_timeout = 10, 'SELECT 1', 'nonsense'); PREPARE s FROM @left"
    role(client, mount, server, creation_statements=[*creation(server), *more])
    role(client, mount, server, name="next", creation_statements=[ask, *creation(server)])
    for _ in range(2):
        assert login(server, creds(client, mount))
        assert login(server, creds(client, mount, "next"))


def test_statements_that_end_the_transaction_are_not_taken_for_undone(postgres, mount, client):
    connect(client, mount, postgres)
    before = set(postgres.users())
    for more in (["COMMIT", "nonsense"], ["ROLLBACK AND CHAIN"], ["COMMIT AND CHAIN", "nonsense"]):
        role(client, mount, postgres, creation_statements=[*PG_USER, *more])
        with pytest.raises(hvac.exceptions.VaultError, match="ended the transaction"):
            creds(client, mount)
    wait_until("nobody to be left", lambda: set(postgres.users()) <= before, 60)


def revoke_in_vain(client, answer):
    """Whether it is told at once or not: the database will refuse it, and it is tried again."""
    with contextlib.suppress(hvac.exceptions.VaultError):
        client.sys.revoke_lease(answer["lease_id"])


def test_revoking_needs_no_look_at_other_users(mariadb, mount, client):
    name = f"limited_{uuid.uuid4().hex[:8]}"
    made = mariadb.ask(
        f"CREATE DATABASE {name}; CREATE USER {name} IDENTIFIED BY 'word'; GRANT CREATE USER ON *.* TO {name}; "
        f"GRANT SELECT ON {name}.* TO {name} WITH GRANT OPTION"
    )
    assert made.returncode == 0, made.stderr
    connect(client, mount, mariadb, username=name, password="word")
    make = f"CREATE USER '{{{{name}}}}'@'%' IDENTIFIED BY '{{{{password}}}}'; GRANT SELECT ON {name}.* TO '{{{{name}}}}'@'%'"
    role(client, mount, mariadb, creation_statements=[make])
    answer = creds(client, mount)
    assert login(mariadb, answer)
    client.sys.revoke_lease(answer["lease_id"])
    wait_until("the user to be gone", lambda: answer["data"]["username"] not in mariadb.users(), 20)
    # Own statements that fail are not taken for done.
    role(client, mount, mariadb, creation_statements=[make], revocation_statements=["nonsense"])
    answer = creds(client, mount)
    revoke_in_vain(client, answer)
    time.sleep(3)
    assert login(mariadb, answer)
    role(client, mount, mariadb, creation_statements=[make], revocation_statements=[])
    wait_until("the user to be gone", lambda: answer["data"]["username"] not in mariadb.users(), 60)


def test_revoking_leaves_alone_what_others_own(postgres, mount, client):
    name = f"maker_{uuid.uuid4().hex[:8]}"
    made = postgres.ask(
        f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'word'; CREATE SCHEMA {name} AUTHORIZATION {name}; "
        f"CREATE TABLE {name}.others (x int)"
    )
    assert made.returncode == 0, made.stderr
    own = postgres.ask(
        f"CREATE TABLE {name}.own (x int, y int); CREATE SEQUENCE {name}.seq; CREATE TYPE {name}.kind AS ENUM ('a'); "
        f"CREATE FUNCTION {name}.twice(int) RETURNS int LANGUAGE sql AS 'SELECT 2 * $1'", name, "word",
    )  # fmt: skip
    assert own.returncode == 0, own.stderr
    connect(client, mount, postgres, username=name, password="word")
    user = '"{{name}}"'
    grants = [
        f"CREATE ROLE {user} LOGIN PASSWORD '{{{{password}}}}'", f"GRANT USAGE ON SCHEMA {name} TO {user}",
        f"GRANT SELECT ON {name}.own TO {user}; GRANT UPDATE (y) ON {name}.own TO {user}",
        f"GRANT USAGE ON SEQUENCE {name}.seq TO {user}; GRANT USAGE ON TYPE {name}.kind TO {user}",
        f"GRANT EXECUTE ON FUNCTION {name}.twice(int) TO {user}",
        f"ALTER DEFAULT PRIVILEGES IN SCHEMA {name} GRANT SELECT ON TABLES TO {user}",
    ]  # fmt: skip
    role(client, mount, postgres, creation_statements=grants)
    answer = creds(client, mount)
    assert login(postgres, answer)
    client.sys.revoke_lease(answer["lease_id"])
    wait_until("the user to be gone", lambda: answer["data"]["username"] not in postgres.users(), 20)
    # One grant that cannot be taken away keeps the user, who is let in no more, and no other grant.
    answer = creds(client, mount)
    user = answer["data"]["username"]
    assert postgres.ask(f'GRANT SELECT ON {name}.others TO "{user}"').returncode == 0
    revoke_in_vain(client, answer)
    held = f"SELECT has_table_privilege('{user}', '{name}.own', 'SELECT')"
    wait_until("the grants to be gone", lambda: postgres.ask(held).stdout.strip() == "f", 20)
    assert not login(postgres, answer)
    assert postgres.ask(f'REVOKE ALL ON {name}.others FROM "{user}"').returncode == 0
    wait_until("the user to be gone", lambda: user not in postgres.users(), 120)


def test_no_part_of_an_odd_password_is_in_errors(server, mount, client):
    rules = 'length = 24\nrule "charset" { charset = "\'\\\\" min-chars = 4 }\nrule "charset" { charset = "Q" }'
    client.adapter.put(f"/v1/sys/policies/password/{mount}", json={"policy": rules})
    connect(client, mount, server, password_policy=mount)
    for statement in ["nonsense '{{password}}'", "SELECT '{{password}}' nonsense nonsense", "SELECT * FROM missing WHERE x = '{{password}}'"]:
        role(client, mount, server, creation_statements=[statement])
        with pytest.raises(hvac.exceptions.VaultError) as refused:
            creds(client, mount)
        assert "QQ" not in str(refused.value) and "''" not in str(refused.value), str(refused.value)


def test_disabling_the_mount_removes_its_users(cluster, server, mount, client):
    connect(client, mount, server)
    role(client, mount, server)
    answer = creds(client, mount)
    cluster.run("secrets", "disable", mount)
    wait_until("the user to be gone", lambda: answer["data"]["username"] not in server.users())


def is_listed(client, answer):
    try:
        client.sys.read_lease(answer["lease_id"])
    except hvac.exceptions.VaultError:
        return False
    return True


def leases(client, mount, name="r"):
    """The leases of a role that are still kept."""
    try:
        return client.sys.list_leases(f"{mount}/creds/{name}")["data"]["keys"]
    except hvac.exceptions.InvalidPath:
        return []


def limited(server, grants=""):
    """A user who may make users, and not look at them."""
    name = f"limited_{uuid.uuid4().hex[:8]}"
    if isinstance(server, Postgres):
        made = server.ask(f"CREATE ROLE {name} LOGIN CREATEROLE PASSWORD 'word'")
    else:
        made = server.ask(f"CREATE USER {name} IDENTIFIED BY 'word'; GRANT CREATE USER ON *.* TO {name}; {grants.format(name=name)}")
    assert made.returncode == 0, made.stderr
    return name


@contextlib.contextmanager
def no_look(server):
    """Nobody but superusers may look for users. Nobody may in MariaDB anyway."""
    if isinstance(server, Postgres):
        assert server.ask("REVOKE SELECT ON pg_roles FROM PUBLIC").returncode == 0
    try:
        yield
    finally:
        if isinstance(server, Postgres):
            assert server.ask("GRANT SELECT ON pg_roles TO PUBLIC").returncode == 0


def that_outlasts(server):
    """Statements of which what they did may stay when they fail."""
    if isinstance(server, Postgres):
        return [*PG_USER, 'GRANT EXECUTE ON FUNCTION pg_sleep(double precision) TO "{{name}}"']
    return ["SET @harmless = 1", *MY_USER]


def test_a_user_that_is_there_outlives_a_failed_request(server, mount, client):
    fixed = f"v-fixed-{uuid.uuid4().hex[:8]}"
    connect(client, mount, server, username_template=fixed)
    role(client, mount, server, creation_statements=that_outlasts(server))
    first = creds(client, mount)
    assert first["data"]["username"] == fixed and login(server, first)
    for _ in range(2):
        with pytest.raises(hvac.exceptions.VaultError, match="is there already"):
            creds(client, mount)
    assert len(leases(client, mount)) == 1
    assert login(server, first) and is_listed(client, first)
    client.sys.revoke_lease(first["lease_id"])
    wait_until("the user to be gone", lambda: fixed not in server.users(), 20)
    # The operator's own, made by hand, for another host.
    made = f"CREATE ROLE \"{fixed}\" LOGIN PASSWORD 'own'" if isinstance(server, Postgres) else f"CREATE USER '{fixed}'@'127.0.0.1' IDENTIFIED BY 'own'"
    assert server.ask(made).returncode == 0
    with pytest.raises(hvac.exceptions.VaultError, match="is there already"):
        creds(client, mount)
    assert leases(client, mount) == [] and server.login(fixed, "own")


def test_a_user_that_is_there_outlives_a_failed_request_of_who_may_not_look(server, mount, client):
    fixed, name = f"v-fixed-{uuid.uuid4().hex[:8]}", limited(server)
    connect(client, mount, server, username=name, password="word", username_template=fixed)
    if isinstance(server, Postgres):
        make = ["CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}'", "DO $$ BEGIN END $$"]
    else:
        make = ["SET @harmless = 1", "CREATE USER '{{name}}'@'%' IDENTIFIED BY '{{password}}'"]
    role(client, mount, server, creation_statements=make, revocation_statements=["DROP USER \"{{name}}\""] if isinstance(server, Postgres) else [])
    with no_look(server):
        first = creds(client, mount)
        assert login(server, first)
        with pytest.raises(hvac.exceptions.VaultError):
            creds(client, mount)
        assert len(leases(client, mount)) == 1
        assert login(server, first) and is_listed(client, first)
        client.sys.revoke_lease(first["lease_id"])
        wait_until("the user to be gone", lambda: fixed not in server.users(), 20)


def test_a_user_made_by_a_statement_that_fails_is_removed(mariadb, mount, client):
    base, other = f"d{uuid.uuid4().hex[:8]}", f"other-{uuid.uuid4().hex[:8]}"
    made = mariadb.ask(
        f"CREATE DATABASE {base}; CREATE USER '{other}'@'%';\nDELIMITER //\n"
        f"CREATE PROCEDURE {base}.mk(n varchar(80), p varchar(80)) BEGIN "
        "EXECUTE IMMEDIATE CONCAT('CREATE USER ''', n, '''@''%'' IDENTIFIED BY ''', p, ''''); SIGNAL SQLSTATE '45000'; END//"
    )
    assert made.returncode == 0, made.stderr
    name = limited(mariadb, f"GRANT EXECUTE ON {base}.* TO {{name}}")
    before = set(mariadb.users())
    by_procedure = base64.b64encode(f"CALL {base}.mk('{{{{name}}}}', '{{{{password}}}}')".encode()).decode()
    two = f"CREATE USER '{{{{name}}}}'@'%' IDENTIFIED BY '{{{{password}}}}', '{other}'@'%' IDENTIFIED BY 'x'"
    for login_as in ({}, {"username": name, "password": "word"}):
        connect(client, mount, mariadb, **login_as)
        for statement in (by_procedure, two):
            role(client, mount, mariadb, creation_statements=[statement])
            with pytest.raises(hvac.exceptions.VaultError):
                creds(client, mount)
            wait_until("nobody to be left", lambda: set(mariadb.users()) <= before, 60)
    assert mariadb.ask(f"SELECT COUNT(*) FROM mysql.user WHERE user = '{other}'").stdout.strip() == "1"


def test_users_for_one_host_are_removed_by_who_may_not_look(mariadb, mount, client):
    connect(client, mount, mariadb, username=limited(mariadb), password="word")
    role(client, mount, mariadb, creation_statements=["CREATE USER '{{name}}'@'127.0.0.1' IDENTIFIED BY '{{password}}'"])
    answer = creds(client, mount)
    # Where it was made is in the lease: not in the role as it is now.
    role(client, mount, mariadb, creation_statements=MY_USER)
    assert login(mariadb, answer)
    client.sys.revoke_lease(answer["lease_id"])
    wait_until("the user to be gone", lambda: answer["data"]["username"] not in mariadb.users(), 20)


def test_a_user_of_whom_nobody_knows_the_host_keeps_its_lease(mariadb, mount, client):
    base = f"d{uuid.uuid4().hex[:8]}"
    made = mariadb.ask(
        f"CREATE DATABASE {base}; CREATE PROCEDURE {base}.mk(n varchar(80), p varchar(80)) "
        "EXECUTE IMMEDIATE CONCAT('CREATE USER ''', n, '''@''127.0.0.1'' IDENTIFIED BY ''', p, '''')"
    )
    assert made.returncode == 0, made.stderr
    name = limited(mariadb, f"GRANT EXECUTE ON {base}.* TO {{name}}")
    connect(client, mount, mariadb, username=name, password="word")
    role(client, mount, mariadb, creation_statements=[f"CALL {base}.mk('{{{{name}}}}', '{{{{password}}}}')"])
    answer = creds(client, mount)
    assert login(mariadb, answer)
    revoke_in_vain(client, answer)
    time.sleep(3)
    assert login(mariadb, answer) and is_listed(client, answer)
    assert mariadb.ask(f"GRANT SELECT ON mysql.* TO {name}").returncode == 0
    revoke_in_vain(client, answer)
    wait_until("the user to be gone", lambda: answer["data"]["username"] not in mariadb.users(), 60)


def test_sessions_of_a_name_in_other_letters_go_on(mariadb, mount, client):
    name = f"v-Payroll-{uuid.uuid4().hex[:8]}"
    assert mariadb.ask(f"CREATE USER '{name.lower()}'@'%' IDENTIFIED BY 'own'").returncode == 0
    connect(client, mount, mariadb, username_template=name)
    role(client, mount, mariadb)
    answer = creds(client, mount)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        running = pool.submit(mariadb.ask, "SELECT SLEEP(5)", name.lower(), "own")
        sessions = f"SELECT COUNT(*) FROM information_schema.processlist WHERE user = '{name}'"
        wait_until("the session", lambda: mariadb.ask(sessions).stdout.strip() == "1")
        client.sys.revoke_lease(answer["lease_id"])
        wait_until("the user to be gone", lambda: name not in mariadb.users(), 20)
        assert running.result().returncode == 0
    assert mariadb.login(name.lower(), "own")


def test_no_static_role_takes_the_user_of_another_connection(server, mount, client):
    """It would be locked out, with every lease that is its own to end."""
    name = f"svc_{uuid.uuid4().hex[:8]}"
    made = f"CREATE ROLE {name} SUPERUSER LOGIN PASSWORD 'own'" if isinstance(server, Postgres) else f"CREATE USER {name} IDENTIFIED BY 'own'"
    assert server.ask(made).returncode == 0
    connect(client, mount, server)
    connect(client, mount, server, name="d", username=name, password="own")
    body = {"db_name": "db", "username": name, "rotation_period": "1h"}
    with pytest.raises(hvac.exceptions.InvalidRequest, match='that of the connection "d"'):
        client.adapter.post(f"/v1/{mount}/static-roles/s", json=body)
    assert server.login(name, "own")
    client.adapter.delete(f"/v1/{mount}/config/d")
    client.adapter.post(f"/v1/{mount}/static-roles/s", json=body)
    today = client.adapter.get(f"/v1/{mount}/static-creds/s")["data"]["password"]
    with pytest.raises(hvac.exceptions.InvalidRequest, match='that of the static role "s"'):
        connect(client, mount, server, name="d", username=name, password=today)


def test_of_many_who_make_one_name_one_does(server, mount, client):
    fixed = f"v-fixed-{uuid.uuid4().hex[:8]}"
    connect(client, mount, server, username_template=fixed)
    role(client, mount, server, creation_statements=that_outlasts(server))

    def attempt(_):
        with contextlib.suppress(hvac.exceptions.VaultError):
            return creds(client, mount)

    for _ in range(3):
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            made = [answer for answer in pool.map(attempt, range(8)) if answer]
        assert len(made) == 1 and login(server, made[0])
        assert len(leases(client, mount)) == 1
        client.sys.revoke_lease(made[0]["lease_id"])
        wait_until("the user to be gone", lambda: fixed not in server.users(), 20)
