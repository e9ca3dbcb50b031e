"""A local Batch API: files, batches that end after some polls, and live requests."""

import email
import email.policy
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from chat_server import completion


@dataclass
class BatchServer:
    """A batch ends after `polls` polls. `fates` has the status and the number of responses of each batch in order.

    The first request of the kind `hold` (upload, create, poll, download) is handled but gets no reply; then `held` is
    set. `refused` are prompts whose line is an error. `sent` are the prompts of all lines of all batches, and `live`
    the bodies of live requests. `pages` gives the pages of the list of batches, `raw` the replies by kind, and with
    `hold_create` no batch is created.
    """

    url: str = ""
    polls: int = 1
    fates: list[tuple[str, int]] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    hold: str | None = None
    held: threading.Event = field(default_factory=threading.Event)
    live: list[dict[str, Any]] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    batches: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_polls: dict[str, int] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)
    pages: Callable[[], dict[str, Any]] | None = None
    hold_create: bool = False
    raw: dict[str, str] = field(default_factory=dict)

    def upload(self, text: str) -> dict[str, Any]:
        name = f"file-{len(self.files)}"
        self.files[name] = text
        return {"id": name, "object": "file", "bytes": len(text), "created_at": 0, "filename": "f", "purpose": "batch",
                "status": "processed"}  # fmt: skip

    def create(self, body: dict[str, Any]) -> dict[str, Any]:
        name = f"batch-{len(self.batches)}"
        lines = [json.loads(line) for line in self.files[body["input_file_id"]].splitlines()]
        self.lines += lines
        self.sent += [line["body"]["messages"][0]["content"] for line in lines]
        self.num_polls[name] = 0
        self.batches[name] = {
            "id": name, "object": "batch", "status": "in_progress", "metadata": body["metadata"], "created_at": 0,
            "endpoint": body["endpoint"], "input_file_id": body["input_file_id"], "completion_window": "24h",
            "request_counts": {"total": len(lines), "completed": 0, "failed": 0},
        }  # fmt: skip
        return self.batches[name]

    def retrieve(self, name: str) -> dict[str, Any]:
        batch = self.batches[name]
        self.num_polls[name] += 1
        if batch["status"] == "in_progress" and self.num_polls[name] > self.polls:
            number = list(self.batches).index(name)
            fate, most = self.fates[number] if number < len(self.fates) else ("completed", 10**9)
            self.end(batch, fate, most)
        return batch

    def end(self, batch: dict[str, Any], fate: str, most: int) -> None:
        good, bad = [], []
        lines = [json.loads(line) for line in self.files[batch["input_file_id"]].splitlines()]
        for number, line in enumerate(reversed(lines)):  # in another order than sent
            text = line["body"]["messages"][0]["content"]
            if number >= most:
                error = {"code": "batch_expired", "message": "too late"}
                bad.append({"custom_id": line["custom_id"], "response": None, "error": error})
            elif text in self.refused:
                reply = {"status_code": 400, "body": {"error": {"message": "bad prompt"}}}
                bad.append({"custom_id": line["custom_id"], "response": reply, "error": None})
            else:
                reply = {"status_code": 200, "body": completion(line["body"])}
                good.append({"custom_id": line["custom_id"], "response": reply, "error": None})
        for key, part in (("output_file_id", good), ("error_file_id", bad)):
            if part and fate != "failed":
                batch[key] = self.upload("".join(json.dumps(line) + "\n" for line in part))["id"]
        if fate == "failed":
            batch["errors"] = {"object": "list", "data": [{"code": "x", "message": "the model is not known"}]}
        batch["status"] = fate


@contextmanager
def batch_server(**options: Any) -> Iterator[BatchServer]:
    """Serves until the block ends."""
    state = BatchServer(**options)
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def reply(self, value: Any, kind: str) -> None:
            if state.hold == kind:
                state.hold = None
                state.held.set()
                self.rfile.read(1)  # returns when the client is gone
                self.close_connection = True
                return
            value = state.raw.get(kind, value)
            data = value.encode() if isinstance(value, str) else json.dumps(value).encode()
            self.send_response(503 if kind == "create" and state.hold_create else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def do_GET(self) -> None:
            parts = self.path.partition("?")[0].split("/")
            with lock:
                if parts[2] == "files":
                    value: Any = state.files[parts[3]]
                    kind = "download"
                elif len(parts) > 3:
                    value, kind = state.retrieve(parts[3]), "poll"
                else:
                    value = state.pages and state.pages()
                    value, kind = (
                        value or {"object": "list", "data": list(state.batches.values()), "has_more": False},
                        "list",
                    )
            self.reply(value, kind)

        def do_POST(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                if self.path == "/v1/files":
                    form = email.message_from_bytes(
                        b"Content-Type: " + self.headers["Content-Type"].encode() + b"\r\n\r\n" + data,
                        policy=email.policy.HTTP,
                    )
                    files = [part for part in form.iter_parts() if part.get_filename()]  # type: ignore[attr-defined]
                    value, kind = state.upload(files[0].get_payload(decode=True).decode()), "upload"
                elif self.path == "/v1/batches" and state.hold_create:
                    value, kind = {}, "create"
                elif self.path == "/v1/batches":
                    value, kind = state.create(json.loads(data)), "create"
                else:
                    state.live.append(json.loads(data))
                    value, kind = completion(state.live[-1]), "live"
            self.reply(value, kind)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
