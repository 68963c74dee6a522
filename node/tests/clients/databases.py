"""Real database servers for tests: started on a free port, with data in a temporary directory, stopped at the end."""

import asyncio
import os
import pathlib
import pwd
import shutil
import subprocess
import tempfile
import threading
import time

from conftest import free_port


def as_user(name):
    """Servers refuse to run as root: then the account that Debian's package made for them is used."""
    return {"user": name, "group": pwd.getpwnam(name).pw_gid, "extra_groups": []} if os.getuid() == 0 else {}


def wait_until(what, check, limit=60):
    deadline = time.monotonic() + limit
    while not check():
        assert time.monotonic() < deadline, f"waited {limit} s in vain for {what}"
        time.sleep(0.1)


class Server:
    """What both servers have in common."""

    def __init__(self, account):
        self.account = account
        self.port = free_port()
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="arca-db-"))
        if os.getuid() == 0:
            shutil.chown(self.dir, account)
        self.process = None

    def run(self, *words, **options):
        done = subprocess.run(words, capture_output=True, text=True, timeout=120, **as_user(self.account), **options)
        assert done.returncode == 0, f"{words[0]}: {done.stdout}{done.stderr}"

    def spawn(self, *words):
        with (self.dir / "log").open("a") as log:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir, **as_user(self.account)
            )
        wait_until(f"{words[0]} to answer", self.answers)

    def answers(self):
        assert self.process.poll() is None, (self.dir / "log").read_text()
        return self.login(self.root, self.root_password)

    def certificates(self):
        """A certificate for localhost of an authority of its own, and another authority."""
        for name in ("ca", "other"):
            self.run(
                "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                "-subj", f"/CN={name}", "-keyout", self.dir / f"{name}.key", "-out", self.dir / f"{name}.pem",
                "-addext", "basicConstraints=critical,CA:TRUE",
            )  # fmt: skip
        self.run(
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-addext", "basicConstraints=CA:FALSE",
            "-CA", self.dir / "ca.pem", "-CAkey", self.dir / "ca.key",
            "-keyout", self.dir / "server.key", "-out", self.dir / "server.crt",
        )  # fmt: skip
        self.ca, self.other_ca = ((self.dir / f"{name}.pem").read_text() for name in ("ca", "other"))

    def stop(self):
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.dir, ignore_errors=True)

    def login(self, user, password, **options):
        return self.ask("SELECT 1", user, password, **options).returncode == 0


class Postgres(Server):
    root, root_password = "postgres", "top secret"

    def __init__(self):
        super().__init__("postgres")
        bin = sorted(pathlib.Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
        self.bin = bin[-1]
        data = self.dir / "data"
        (self.dir / "password").write_text(self.root_password)
        os.chmod(self.dir / "password", 0o644)
        self.run(
            self.bin / "initdb", "-D", data, "-U", self.root, "-A", "scram-sha-256", f"--pwfile={self.dir}/password", "-N"
        )
        self.certificates()
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=off", "ssl=on"]
        settings += [f"ssl_cert_file={self.dir}/server.crt", f"ssl_key_file={self.dir}/server.key"]
        words = [word for setting in settings for word in ("-c", setting)]
        self.spawn(self.bin / "postgres", "-D", data, "-p", str(self.port), *words)

    def ask(self, sql, user=None, password=None, database="postgres"):
        words = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port)]
        environment = {**os.environ, "PGPASSWORD": password or self.root_password, "PGCONNECT_TIMEOUT": "10"}
        words += ["-U", user or self.root, "-d", database, "-c", sql]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=60)

    def users(self):
        return self.ask("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'").stdout.split()

    def url(self, port=None, query="sslmode=disable"):
        return f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{port or self.port}/postgres?{query}"


class MariaDb(Server):
    root, root_password = "vault", "top secret"

    def __init__(self):
        super().__init__("mysql")
        data = self.dir / "data"
        account = [] if os.getuid() else ["--user=mysql"]
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db", *account],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        init = self.dir / "init.sql"
        init.write_text(
            f"CREATE USER '{self.root}'@'%' IDENTIFIED BY '{self.root_password}';\n"
            f"GRANT ALL ON *.* TO '{self.root}'@'%' WITH GRANT OPTION;\n"
        )
        os.chmod(init, 0o644)
        self.certificates()
        self.spawn(
            "/usr/sbin/mariadbd", "--no-defaults", f"--datadir={data}", f"--port={self.port}", "--bind-address=127.0.0.1",
            f"--socket={self.dir}/socket", f"--pid-file={self.dir}/pid", f"--init-file={init}", "--skip-name-resolve",
            f"--ssl-cert={self.dir}/server.crt", f"--ssl-key={self.dir}/server.key",
        )  # fmt: skip

    def ask(self, sql, user=None, password=None):
        words = ["mariadb", "--no-defaults", "-N", "-h", "127.0.0.1", "-P", str(self.port), "--connect-timeout=10"]
        words += ["-u", user or self.root, f"-p{password or self.root_password}", "-e", sql]
        return subprocess.run(words, capture_output=True, text=True, timeout=60)

    def users(self):
        return self.ask("SELECT user FROM mysql.user WHERE user LIKE 'v-%'").stdout.split()

    def url(self, port=None, host="127.0.0.1", query=""):
        return f"{{{{username}}}}:{{{{password}}}}@tcp({host}:{port or self.port})/{query}"


class Proxy:
    """Stands between, and can hold everything back."""

    def __init__(self, target):
        self.target, self.port = target, free_port()
        self.loop = asyncio.new_event_loop()
        self.flows = None
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()
        wait_until("the proxy", lambda: self.flows is not None)

    def serve(self):
        asyncio.set_event_loop(self.loop)

        async def start():
            self.flows = asyncio.Event()
            self.flows.set()
            await asyncio.start_server(self.connected, "127.0.0.1", self.port)

        self.loop.run_until_complete(start())
        self.loop.run_forever()

    async def connected(self, reader, writer):
        await self.flows.wait()
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self.copy(reader, far_writer), self.copy(far_reader, writer))

    async def copy(self, reader, writer):
        try:
            while data := await reader.read(65536):
                await self.flows.wait()
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    def hold(self):
        self.loop.call_soon_threadsafe(self.flows.clear)

    def release(self):
        self.loop.call_soon_threadsafe(self.flows.set)
