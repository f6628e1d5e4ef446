"""A Hugging Face hub on this machine: what its client asks for to make a data set, and to commit files to it."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import yaml


@dataclass
class FakeHub:
    """What the hub was sent. refuses: the status with which it answers all that writes; 0 where it accepts.

    licences: of data sets that are there. asked: method, path and token of each request.
    """

    endpoint: str = ""
    refuses: int = 0
    licences: dict[str, str] = field(default_factory=dict)
    repos: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    blobs: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        """Return status and JSON for a request."""
        if method == "GET" and path.startswith("/api/datasets/"):
            return self.described(path.removeprefix("/api/datasets/").partition("?")[0])
        if self.refuses:
            return self.refuses, {"error": "You don't have the rights"}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.repos[name] = asked
            return 200, {"url": f"{self.endpoint}/datasets/{name}", "name": name}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            files = json.loads(body)["files"]
            modes = {True: "lfs", False: "regular"}
            told = [
                {
                    "path": one["path"],
                    "uploadMode": modes[one["path"].endswith(".parquet")],
                    "shouldIgnore": False,
                }
                for one in files
            ]
            return 200, {"files": told}
        if path.endswith("/info/lfs/objects/batch"):
            objects = [
                one | {"actions": {"upload": {"href": f"{self.endpoint}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return 200, {"transfer": "basic", "objects": objects}
        if method == "PUT" and path.startswith("/lfs/"):
            oid = path.removeprefix("/lfs/")
            assert hashlib.sha256(body).hexdigest() == oid
            self.blobs[oid] = body
            return 200, {}
        if "/commit/" in path:
            return self.commit(body)
        return 404, {"error": path}

    def described(self, name: str) -> tuple[int, Any]:
        """Tell of a data set: one that is known by its licence, or the one that was made here."""
        found: dict[str, Any] = {"id": name, "private": False, "disabled": False, "sha": "b" * 40}
        if name in self.licences:
            return 200, found | {"cardData": {"license": self.licences[name]}, "siblings": []}
        if name not in self.repos:
            return 404, {"error": "not found"}
        card = self.files.get("README.md", b"").decode().split("---\n")
        names = [{"rfilename": one} for one in self.files]
        return 200, found | {
            "cardData": yaml.safe_load(card[1]) if len(card) > 2 else None,
            "siblings": names,
        }

    def commit(self, body: bytes) -> tuple[int, Any]:
        """Take in the files of a commit."""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                self.files[value["path"]] = base64.b64decode(value["content"])
            if line["key"] == "lfsFile":
                self.files[value["path"]] = self.blobs[value["oid"]]
            if line["key"] == "deletedFile":
                del self.files[value["path"]]
        url = f"{self.endpoint}/datasets/me/x/commit/abc"
        return 200, {"success": True, "commitOid": "a" * 40, "commitUrl": url, "pullRequestUrl": None}


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """Serve one."""
    hub = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            hub.asked.append((self.command, self.path, self.headers.get("Authorization", "")))
            status, told = hub.answer(self.command, self.path, body)
            data = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = handle_any

        def log_message(self, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, daemon=True).start()
    yield hub
    server.shutdown()
    server.server_close()
