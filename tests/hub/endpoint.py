"""A server on this machine that speaks the hub's protocol, faults included."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "c" * 40
LARGE = (".safetensors", ".bin", ".pth")
"""Endings that the hub keeps elsewhere: it answers them with a redirect."""


@dataclass
class Endpoint:
    """Repositories ``{"owner/name": {"file": bytes}}``, every one with the revisions main and v1.

    ``fault``: ``"silent"`` (never answers), ``"half"`` (breaks off in the middle of a large file),
    ``"rotten"`` (other bytes than promised), ``"private"`` (401), ``"down"`` (503), ``"alone"``
    (503 for all but weights).
    """

    repositories: dict[str, dict[str, bytes]]
    fault: str = ""
    asked: list[str] = field(default_factory=list)
    url: str = ""
    store: str = ""


def handler(endpoint: Endpoint) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def answer(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            endpoint.asked.append(f"{self.command} {self.path}")
            if endpoint.fault == "silent":
                time.sleep(30)
            parts = self.path.strip("/").split("/")
            if len(parts) < 4:
                self.answer(404, {})
            elif parts[0] == "blobs":
                self.send_blob(endpoint.repositories["/".join(parts[1:3])][parts[3]])
            elif endpoint.fault == "down" or self.is_beside(parts[-1]):
                self.answer(503, {})
            elif endpoint.fault == "private":
                self.answer(401, {"X-Error-Code": "GatedRepo"})
            else:
                self.resolve("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

        def is_beside(self, file: str) -> bool:
            return endpoint.fault == "alone" and not file.endswith(LARGE)

        def resolve(self, name: str, revision: str, file: str) -> None:
            files = endpoint.repositories.get(name)
            known = {"X-Repo-Commit": COMMIT}
            if files is None:
                self.answer(401, {"X-Error-Code": "RepoNotFound"})
            elif revision not in ("main", "v1", COMMIT):
                self.answer(404, {"X-Error-Code": "RevisionNotFound"})
            elif file not in files:
                self.answer(404, {"X-Error-Code": "EntryNotFound", **known})
            elif file.endswith(LARGE):
                where = {
                    "Location": f"{endpoint.store}/blobs/{name}/{file}",
                    "X-Linked-ETag": f'"{hashlib.sha256(files[file]).hexdigest()}"',
                    "X-Linked-Size": str(len(files[file])),
                }
                self.answer(302, {**known, **where})
            else:
                etag = hashlib.sha1(files[file]).hexdigest()
                self.answer(200, {"ETag": f'"{etag}"', **known}, files[file])

        def send_blob(self, content: bytes) -> None:
            if endpoint.fault == "half":
                self.send_response(200)
                self.send_header("Content-Length", str(len(content) // 2))
                self.end_headers()
                self.wfile.write(content[: len(content) // 2])
                return
            if endpoint.fault == "rotten":
                content = content[:-1] + bytes([content[-1] ^ 1])
            self.answer(200, {"ETag": '"blob"'}, content)

    return Handler


@contextmanager
def serve(repositories: dict[str, dict[str, bytes]], fault: str = "") -> Iterator[Endpoint]:
    """The endpoint, running until the block ends."""
    endpoint = Endpoint(repositories, fault)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(endpoint))
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_port}"
    endpoint.store = f"http://localhost:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
