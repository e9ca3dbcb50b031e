"""A local hub of data sets: the part of Hugging Face's HTTP protocol that `datasets` uses."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Sets = dict[str, dict[str, dict[str, bytes]]]  # files by name, without folders, by revision, by the data set's name


@contextmanager
def hub(sets: Sets) -> Iterator[tuple[str, list[str]]]:
    """Serves the data sets. Gives the address for HF_ENDPOINT and the list of requests, as `METHOD path`."""
    requests: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(b"")

        def do_GET(self) -> None:
            self.answer(b"")

        def do_POST(self) -> None:
            self.answer(self.rfile.read(int(self.headers["Content-Length"])))

        def answer(self, body: bytes) -> None:
            path = unquote(urlsplit(self.path).path).strip("/")
            requests.append(f"{self.command} /{path}")
            if "datasets/" not in path:
                return self.fail("EntryNotFound")
            parts = path.removeprefix("api/").split("/")
            name, verb, revision, rest = "/".join(parts[1:3]), *parts[3:5], "/".join(parts[5:])
            if name not in sets:
                return self.fail("RepoNotFound")
            if revision not in sets[name]:
                return self.fail("RevisionNotFound")
            files = sets[name][revision]
            if verb == "resolve":
                return self.send(files[rest], revision) if rest in files else self.fail("EntryNotFound")
            if verb == "paths-info":
                query = parse_qs(body.decode()) if b"=" in body else json.loads(body)
                paths = [path for path in query["paths"] if path in files]
            else:
                paths = [path for path in files if path.startswith(rest)]
            sizes = [(path, len(files[path]), etag(files[path])) for path in paths]
            entries = [{"type": "file", "path": path, "size": size, "oid": tag} for path, size, tag in sizes]
            self.send(json.dumps(entries if verb != "revision" else {"id": name, "sha": revision}).encode(), revision)

        def send(self, content: bytes, revision: str) -> None:
            """Sends all of it, or the requested range."""
            whole = len(content)
            start, _, end = self.headers.get("Range", "").removeprefix("bytes=").partition("-")
            part = content[int(start or 0) : int(end) + 1 if end else None]
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{int(start) + len(part) - 1}/{whole}")
            self.send_header("ETag", f'"{etag(content)}"')
            self.send_header("X-Repo-Commit", revision)
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(part)

        def fail(self, code: str) -> None:
            self.send_response(404)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}", requests
    finally:
        server.shutdown()
        server.server_close()


def etag(content: bytes) -> str:
    """The id that git gives a blob."""
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content)).hexdigest()
