"""A local chat endpoint. Responses depend on the prompt alone, and a script decides which requests fail."""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Script = Callable[[int, dict[str, Any]], Any]
WORDS = (
    "amber",
    "brook",
    "cedar",
    "dune",
    "ember",
    "fern",
    "glade",
    "heath",
    "iris",
    "jade",
    "kelp",
    "lake",
    "moss",
    "oak",
)


@dataclass
class Reply:
    """A reply in place of a response, after `hang` seconds. With `drop` the connection is closed without a reply.

    With `pause`, not None, the body is sent for ever, with that many seconds in between.
    """

    status: int = 200
    body: str | bytes = ""
    headers: dict[str, str] = field(default_factory=dict)
    hang: float = 0.0
    drop: bool = False
    pause: float | None = None


def api_teacher(url: str, **changes: Any) -> dict[str, Any]:
    """An entry of `teachers` in params.yaml for the server at `url`."""
    values = {
        "name": "api", "kind": "openai", "model": "m", "base_url": url, "api_key_env": "TINY_KEY", "mode": "live",
        "concurrency": 4, "requests_per_minute": None, "tokens_per_minute": None, "timeout_s": 5.0, "max_retries": 2,
        "price": None, "on_missing": "fail", "extra_body": {}, "prompt_fraction": 1.0, "license": None,
    }  # fmt: skip
    return values | changes


def completion(body: dict[str, Any]) -> dict[str, Any]:
    """A chat completion. Its text depends on the messages and, above temperature 0, on the seed."""
    heat = [body["temperature"], body["seed"]] if body.get("temperature") else []
    digest = hashlib.sha256(json.dumps([body["messages"], *heat]).encode()).digest()
    words = [WORDS[byte % len(WORDS)] for byte in digest[:8]]
    tokens = [
        {
            "token": word,
            "logprob": -0.1 * (place + 1),
            "bytes": None,
            "top_logprobs": [{"token": word, "logprob": -0.1 * (place + 1)}, {"token": "no", "logprob": -3.0}],
        }
        for place, word in enumerate(words)
    ]
    return {
        "id": "1",
        "object": "chat.completion",
        "created": 0,
        "model": body["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": " ".join(words)},
                "finish_reason": "stop",
                "logprobs": {"content": tokens},
            }
        ],
        "usage": {"prompt_tokens": 5, "completion_tokens": 8, "total_tokens": 13},
    }


@dataclass
class ChatServer:
    """The server's address, and what it received. `max_at_once` is the maximum of requests in flight."""

    url: str
    bodies: list[dict[str, Any]]
    keys: list[str]
    max_at_once: int = 0


@contextmanager
def chat_server(script: Script = lambda number, body: None, delay: float = 0.0) -> Iterator[ChatServer]:
    """Serves until the block ends. `script(number of the request, body)` gives a Reply, or None for a response."""
    state = ChatServer("", [], [])
    lock = threading.Lock()
    at_once = 0

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: Any) -> None:
            pass

        def do_POST(self) -> None:
            nonlocal at_once
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(state.bodies)
                state.bodies.append(body)
                state.keys.append(self.headers["Authorization"])
                at_once += 1
                state.max_at_once = max(state.max_at_once, at_once)
            try:
                time.sleep(delay)
                reply = script(number, body) or Reply(body=json.dumps(completion(body)))
                time.sleep(reply.hang)
            finally:  # before the reply is sent: after it the next request may come at any moment
                with lock:
                    at_once -= 1
            try:
                if reply.drop:
                    self.close_connection = True
                    self.connection.close()
                    return
                data = reply.body.encode() if isinstance(reply.body, str) else reply.body
                self.send_response(reply.status)
                headers = {
                    "Content-Type": "application/json",
                    "Content-Length": str(len(data) if reply.pause is None else 10**12),
                } | reply.headers
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
                while reply.pause is not None:
                    time.sleep(reply.pause)
                    self.wfile.write(data)
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
