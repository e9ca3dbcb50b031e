"""A chat endpoint for measurements, fast and faulty on demand: `python -m tools.bench.load_server --delay-ms 50`.

Prints its port and serves on this machine until it is killed. Faults are drawn by share from a seeded generator.
"""

import argparse
import asyncio
import hashlib
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

KINDS = ("429", "500", "timeout", "garbage")
WORDS = ("amber", "brook", "cedar", "dune", "ember", "fern", "glade", "heath", "iris", "jade", "kelp", "lake")


def completion(body: dict[str, Any], tokens: int) -> bytes:
    """A chat completion of so many tokens that depends on messages and, above temperature 0, on the seed."""
    heat = [body["seed"]] if body["temperature"] else []
    digest = hashlib.sha256(json.dumps([body["messages"], *heat]).encode()).digest()
    words = [WORDS[digest[place % len(digest)] % len(WORDS)] for place in range(tokens)]
    scored = [
        {
            "token": word,
            "logprob": -0.1,
            "top_logprobs": [{"token": word, "logprob": -0.1}, {"token": "", "logprob": -3}],
        }
        for word in words
    ]
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": " ".join(words)},
        "finish_reason": "stop",
        "logprobs": {"content": scored},
    }
    usage = {"prompt_tokens": 20, "completion_tokens": tokens, "total_tokens": 20 + tokens}
    value = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return json.dumps(value).encode()


class Server:
    """Answers after `delay` seconds, or fails in one of KINDS by the share of it."""

    def __init__(self, delay: float, tokens: int, faults: dict[str, float]) -> None:
        self.delay, self.tokens, self.faults = delay, tokens, faults
        self.random = random.Random(0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, request after request."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.split(b"\r\n")
                    if line.lower().startswith(b"content-length")
                )
                body = json.loads(await reader.readexactly(length))
                writer.write(await self.reply(body))
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def reply(self, body: dict[str, Any]) -> bytes:
        """The bytes of a response."""
        draw, kind = self.random.random(), None
        for name, share in self.faults.items():
            if kind is None and draw < share:
                kind = name
            draw -= share
        if kind == "429":
            wait = "retry-after-ms: 30\r\n" if self.random.random() < 0.1 else ""
            return _response("429 Too Many Requests", b'{"error": {"message": "slow down"}}', wait)
        if kind == "500":
            return _response("500 Internal Server Error", b"{}")
        await asyncio.sleep(3600 if kind == "timeout" else self.delay)
        return _response("200 OK", b"<html>busy</html>" if kind == "garbage" else completion(body, self.tokens))


def _response(status: str, content: bytes, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n{headers}\r\n"
    return head.encode() + content


@contextmanager
def load_server(*options: str) -> Iterator[str]:
    """The address of such a server in a process of its own, until the block ends."""
    command = [sys.executable, "-m", "tools.bench.load_server", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}/v1"
        finally:
            process.kill()


async def main() -> None:
    options = argparse.ArgumentParser(prog="python -m tools.bench.load_server", description=__doc__)
    options.add_argument("--delay-ms", type=float, default=50.0)
    options.add_argument("--tokens", type=int, default=16)
    for kind in KINDS:
        options.add_argument(f"--share-{kind}", type=float, default=0.0)
    given = vars(options.parse_args())
    faults = {kind: given[f"share_{kind}"] for kind in KINDS}
    state = Server(given["delay_ms"] / 1000, given["tokens"], faults)
    server = await asyncio.start_server(state.serve, "127.0.0.1", 0, backlog=1024)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
