"""S3 as moto serves it, behind a proxy that gets in the way: errors, stalls, lost connections, listings that lag.

What goes wrong follows from a seed, the request, and how often it came: two runs that ask the same meet the same.
"""

import html
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from threading import Lock, Thread
from urllib.parse import unquote, unquote_plus, urlsplit

ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message>'
    "<RequestId>4442587FB7D0A2F9</RequestId><HostId>davir</HostId></Error>"
)
ERRORS = {
    "internal_error": (500, "InternalError", "We encountered an internal error. Please try again."),
    "slow_down": (503, "SlowDown", "Please reduce your request rate."),
}
KINDS = ("internal_error", "slow_down", "hang_up", "lost_answer", "cut_answer", "stall")
"""hang_up: before the request is served; lost_answer: after; cut_answer: in its middle; stall: no answer at all."""

Fails = Callable[[str, str], bool]


@dataclass
class Faults:
    """What goes wrong. share: of all requests; fails: requests (method, path and query) that get a 500 every time."""

    share: float = 0.0
    seed: int = 0
    stall_seconds: float = 2.0
    lag_seconds: float = 0.0
    fails: Fails = lambda method, target: False

    def kind(self, method: str, target: str, time_asked: int) -> str | None:
        """Say what goes wrong with a request, if anything does."""
        if self.fails(method, target):
            return "internal_error"
        draw = Random(f"{self.seed} {method} {target} {time_asked}")
        return draw.choice(KINDS) if draw.random() < self.share else None


@dataclass
class FaultyS3:
    """The proxy. `met` counts what went wrong, `served` what was asked for and done."""

    upstream: tuple[str, int]
    faults: Faults = field(default_factory=Faults)
    asked: Counter[str] = field(default_factory=Counter)
    met: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    written: dict[str, float] = field(default_factory=dict)
    lock: Lock = field(default_factory=Lock)

    def begin(self, **faults) -> None:
        """Forget what was met, and go wrong in another way from now on."""
        with self.lock:
            self.faults = Faults(**faults)
            for counter in (self.asked, self.met, self.served):
                counter.clear()

    def next_fault(self, method: str, target: str) -> str | None:
        """Say what goes wrong with this request."""
        with self.lock:
            request = f"{method} {target}"
            kind = self.faults.kind(method, target, self.asked[request])
            self.asked[request] += 1
            if kind:
                self.met[kind] += 1
            return kind

    def note(self, method: str, target: str) -> None:
        """Note a request that was served."""
        with self.lock:
            self.served[f"{method} {target}"] += 1
            if method in ("PUT", "POST"):
                self.written.setdefault(unquote(urlsplit(target).path), time.monotonic())

    def shown(self, bucket: str, listing: bytes) -> bytes:
        """Leave out of a listing what is younger than the lag."""
        oldest = time.monotonic() - self.faults.lag_seconds

        def keep(entry: re.Match[bytes]) -> bytes:
            key = unquote_plus(html.unescape(re.search(rb"<Key>(.*?)</Key>", entry[0])[1].decode()))
            return entry[0] if self.written.get(f"{bucket}/{key}", 0.0) <= oldest else b""

        return re.sub(rb"<Contents>.*?</Contents>", keep, listing, flags=re.DOTALL)

    def serve(self) -> ThreadingHTTPServer:
        """Start serving; return the server."""
        handler = type("Handler", (Handler,), {"proxy": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        Thread(target=server.serve_forever, daemon=True).start()
        return server


class Handler(BaseHTTPRequestHandler):
    """Serves one connection."""

    protocol_version = "HTTP/1.1"
    proxy: FaultyS3

    def answer(self) -> None:
        """Serve one request, or get in its way."""
        body = self.read_body()
        kind = self.proxy.next_fault(self.command, self.path)
        if kind in ERRORS:
            status, code, message = ERRORS[kind]
            return self.send(status, {}, ERROR.format(code=code, message=message).encode())
        if kind == "stall":
            time.sleep(self.proxy.faults.stall_seconds)
        if kind in ("stall", "hang_up"):
            return self.hang_up()
        response, content = self.forward(body)
        if kind == "lost_answer":
            return self.hang_up()
        headers = {name: value for name, value in response.getheaders() if name.lower() not in OWN_HEADERS}
        if self.command == "HEAD":
            headers["Content-Length"] = response.getheader("Content-Length", "0")
        self.send(response.status, headers, content, cut=kind == "cut_answer")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

    def read_body(self) -> bytes:
        """Read the body of a request, of known length or in chunks."""
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def forward(self, body: bytes) -> tuple[HTTPResponse, bytes]:
        """Have moto serve the request."""
        upstream = HTTPConnection(*self.proxy.upstream)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in OWN_HEADERS}
        upstream.request(self.command, self.path, body, headers | {"Content-Length": str(len(body))})
        response = upstream.getresponse()
        content = response.read()
        upstream.close()
        if response.status < 300:
            self.proxy.note(self.command, self.path)
        if "list-type=2" in self.path and self.proxy.faults.lag_seconds:
            content = self.proxy.shown(unquote(urlsplit(self.path).path).rstrip("/"), content)
        return response, content

    def send(self, status: int, headers: dict[str, str], content: bytes, cut: bool = False) -> None:
        """Answer; if cut, with half of it."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if cut else content)
        if cut:
            self.hang_up()

    def hang_up(self) -> None:
        """Close the connection."""
        self.close_connection = True

    def log_message(self, *_) -> None:
        """Say nothing."""


OWN_HEADERS = {"connection", "transfer-encoding", "content-length", "expect", "keep-alive"}
