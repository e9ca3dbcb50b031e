"""Real servers on loopback: of models, and of storage with a secret that each insists on."""

import base64
import contextlib
import getpass
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


@dataclass(frozen=True)
class Remote:
    """A DVC remote: what is committed of it, what only .dvc/config.local may hold, and the same with a wrong secret."""

    url: str
    options: dict[str, str] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    wrong: dict[str, str] = field(default_factory=dict)


def free_ports(count: int) -> list[int]:
    """Ports that nothing listens on."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


@contextlib.contextmanager
def running(command: list[str], log: Path, port: int, seconds: float = 60) -> Iterator[None]:
    """A server process from the moment it listens on `port`."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        until = time.monotonic() + seconds
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def model_server(log: Path, *command: str) -> Iterator[str]:
    """The address of an OpenAI-compatible server that the command starts, with a free port in place of PORT."""
    (port,) = free_ports(1)
    offline = ["env", "HF_HUB_OFFLINE=1", "OMP_NUM_THREADS=1"]
    with running([*offline, *(part.replace("PORT", str(port)) for part in command)], log, port, 240):
        yield f"http://127.0.0.1:{port}/v1"


@contextlib.contextmanager
def folder(place: Path) -> Iterator[Remote]:
    """A folder, on a shared disk for example."""
    yield Remote(str(place / "storage"))


@contextlib.contextmanager
def ssh(place: Path) -> Iterator[Remote]:
    """OpenSSH's server with host key, user key and configuration of its own."""
    assert SSHD
    place.mkdir(parents=True)
    for name in ("host", "user", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(place / name)], check=True)
    shutil.copy(place / "user.pub", place / "authorized")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # root's sshd drops its rights there
    (port,) = free_ports(1)
    settings = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": place / "host",
        "AuthorizedKeysFile": place / "authorized", "PidFile": place / "pid", "StrictModes": "no",
        "UsePAM": "no", "PermitRootLogin": "yes",
        "PasswordAuthentication": "no", "Subsystem": "sftp internal-sftp",
    }  # fmt: skip
    (place / "config").write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    url = f"ssh://{getpass.getuser()}@127.0.0.1:{port}{place}/storage"
    with running([SSHD, "-D", "-e", "-f", str(place / "config")], place / "log", port):
        yield Remote(
            url, {}, {"keyfile": str(place / "user")}, {"keyfile": str(place / "stranger"), "agent_forwarding": "false"}
        )


@contextlib.contextmanager
def s3(place: Path) -> Iterator[Remote]:
    """SeaweedFS with one identity and one bucket."""
    place.mkdir(parents=True)
    key, secret = "-".join(("key", "of", "the", "team")), "-".join(("the", "secret", "of", "the", "team"))
    identity = {"name": "team", "credentials": [{"accessKey": key, "secretKey": secret}], "actions": ["Admin"]}
    (place / "identities.json").write_text(json.dumps({"identities": [identity]}))
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    ports = dict(zip((*names, "s3.port", "s3.port.grpc", "s3.port.iceberg"), free_ports(9), strict=True))
    command = [
        str(Path(sys.executable).parent / "weed"), "server", "-filer", "-s3", f"-dir={place}", "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1", "-volume.max=50", f"-s3.config={place / 'identities.json'}",
        *(f"-{name}={port}" for name, port in ports.items()),
    ]  # fmt: skip
    endpoint = f"http://127.0.0.1:{ports['s3.port']}"
    with running(command, place / "log", ports["s3.port"]):
        make_bucket(endpoint, key, secret)
        yield Remote(
            "s3://distill/storage",
            {"endpointurl": endpoint},
            {"access_key_id": key, "secret_access_key": secret},
            {"access_key_id": key, "secret_access_key": "a-wrong-guess"},
        )


@contextlib.contextmanager
def webdav(place: Path) -> Iterator[Remote]:
    """WsgiDAV with one user and a folder, which DVC wants to be there."""
    (place / "files/storage").mkdir(parents=True)
    user, secret = "-".join(("member", "of", "the", "team")), "-".join(("a", "third", "secret", "of", "the", "team"))
    (port,) = free_ports(1)
    settings = {
        "host": "127.0.0.1",
        "port": port,
        "provider_mapping": {"/": str(place / "files")},
        "simple_dc": {"user_mapping": {"*": {user: {"password": secret}}}},
    }
    (place / "settings.json").write_text(json.dumps(settings))
    command = [str(Path(sys.executable).parent / "wsgidav"), f"--config={place / 'settings.json'}", "--server=cheroot"]
    with running(command, place / "log", port):
        yield Remote(
            f"webdav://127.0.0.1:{port}/storage",
            {"user": user},
            {"password": secret},
            {"password": "a-wrong-guess"},
        )


def make_bucket(endpoint: str, key: str, secret: str) -> None:
    """Makes the bucket as soon as the server is able to."""
    from botocore.exceptions import BotoCoreError, ClientError
    from botocore.session import get_session

    client = get_session().create_client(
        "s3", endpoint_url=endpoint, aws_access_key_id=key, aws_secret_access_key=secret, region_name="us-east-1"
    )
    until = time.monotonic() + 60
    while True:
        try:
            client.create_bucket(Bucket="distill")
            client.put_object(Bucket="distill", Key="ready", Body=b"yes")
            return
        except (BotoCoreError, ClientError):
            assert time.monotonic() < until
            time.sleep(0.3)


@contextlib.contextmanager
def http(place: Path) -> Iterator[Remote]:
    """A web server that stores what is PUT, behind basic authentication."""
    user, secret = "-".join(("colleague", "of", "ours")), "-".join(("another", "secret", "of", "the", "team"))
    wanted = "Basic " + base64.b64encode(f"{user}:{secret}".encode()).decode()

    class Store(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status: int, body: bytes = b"", length: int | None = None) -> None:
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", "Basic")
            self.send_header("Content-Length", str(len(body) if length is None else length))
            self.end_headers()
            self.wfile.write(body)

        def handle_request(self) -> None:
            body = b""
            if self.headers.get("Transfer-Encoding") == "chunked":
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = place / self.path.strip("/")
            if self.headers.get("Authorization") != wanted:
                self.answer(401)
            elif self.command == "PUT":
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(body)
                self.answer(201)
            elif not path.is_file():
                self.answer(404)
            elif self.command == "HEAD":
                self.answer(200, length=path.stat().st_size)
            else:
                self.answer(200, path.read_bytes())

        do_GET = do_HEAD = do_PUT = handle_request

        def log_message(self, *arguments: object) -> None:
            """Stays silent."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Store)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Remote(
            f"http://127.0.0.1:{server.server_port}/storage",
            {"auth": "basic", "method": "PUT"},
            {"user": user, "password": secret},
            {"user": user, "password": "a-wrong-guess"},
        )
    finally:
        server.shutdown()
        server.server_close()
