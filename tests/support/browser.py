"""A headless browser: screenshots, measurements and requests of a page."""

import json
import os
import re
import shutil
import subprocess
import threading
from html import unescape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
MISSING = "there is no browser: apt-get install chromium"
QUIET = ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"]
# the page in frames of several widths, and a script that measures them
HARNESS = """<!doctype html><meta charset="utf-8"><link rel="icon" href="data:,"><body><script>
for (const width of WIDTHS) {
  const frame = document.createElement("iframe");
  document.body.append(Object.assign(frame, {src: "page.html", width, height: 844, style: "border: 0"}));
}
function measure(frame) {
  const page = frame.contentDocument, links = [...page.links].map(link => link.getAttribute("href"));
  page.querySelectorAll("details").forEach(details => details.open = true);
  const edge = page.documentElement.clientWidth + 1;
  const beyond = node => node.getBoundingClientRect().right > edge && !node.closest(".scroll *");
  return {
    title: page.title,
    frame: frame.clientWidth,
    page: page.documentElement.scrollWidth,
    beyond: [...page.body.querySelectorAll("*")].filter(beyond).map(node => node.outerHTML.slice(0, 80)),
    cut: [...page.querySelectorAll(".scroll")].filter(node => node.scrollWidth > node.clientWidth).length,
    images: [...page.images].map(image => image.complete && image.naturalWidth),
    scripts: page.scripts.length,
    links,
    missing: links.filter(link => !page.getElementById(link.slice(1))),
    requests: frame.contentWindow.performance.getEntriesByType("resource").map(entry => entry.name),
    text: page.body.innerText,
  };
}
addEventListener("load", () => {
  document.body.textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(measure));
});
</script></body>"""


def chromium(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Runs the browser with a new profile below the folder; its console goes to stderr."""
    assert CHROMIUM is not None
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    line = [CHROMIUM, "--headless", "--disable-gpu", "--enable-logging=stderr", *sandbox, *QUIET]
    line += [f"--user-data-dir={folder / 'profile'}", *options]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=True)


def console(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines that the page wrote to the browser's console."""
    return [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


def measure(page: str, widths: list[int], folder: Path) -> tuple[list[dict[str, Any]], list[str], list[str]]:
    """Measurements of HARNESS at each width, the console, and all requests: the server is the proxy too."""
    requests: list[str] = []
    files = {"/": HARNESS.replace("WIDTHS", json.dumps(widths)), "/page.html": page}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            requests.append(self.path)
            body = files.get(self.path, "").encode()
            self.send_response(200 if body else 404)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_CONNECT(self) -> None:
            requests.append(self.path)
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        done = chromium(folder, f"--proxy-server={url}", "--dump-dom", f"{url}/")
        server.shutdown()
    body = re.search(r"<body>(\[.*\])</body>", done.stdout, re.DOTALL)
    assert body, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(unescape(body[1])), console(done), requests
