"""A hub on 127.0.0.1 in the shape of huggingface.co: model info, resolve, large files from another origin, and
what publishing needs (receiving.py).

Faults are armed by path and used up one by one; every byte of a file that is sent is counted by its name.
"""

import hashlib
import json
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from receiving import Received, Receiving

LARGE = (".safetensors", ".bin", ".parquet")


def commit_of(files: dict[str, bytes]) -> str:
    return hashlib.sha1(repr(sorted(files.items())).encode()).hexdigest()


def oid(content: bytes) -> str:
    """What git calls a blob."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repo:
    """Commits by sha, each its files by name; branches by name."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    private: bool = False
    sizes: dict[str, int] = field(default_factory=dict)  # what info says instead of the truth

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        sha = commit_of(files)
        self.commits[sha], self.branches[branch] = files, sha
        return sha


@dataclass
class Fault:
    """What happens to a request instead of the right answer; `times` requests, then no more."""

    path: str
    times: int = 1
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None  # bytes of the body after which the connection is closed
    change: bool = False  # another byte in the middle
    shorten: int = 0  # bytes that the file lacks, in its length too
    whole: bool = False  # Range is not heeded
    pause: float = 0  # seconds after every 16 KiB
    then: Callable[[], None] | None = None  # called before the connection is closed


class Hub:
    """Repositories by name; a dataset's begins with datasets/."""

    def __init__(self):
        self.repos: dict[str, Repo] = {}
        self.faults: list[Fault] = []
        self.sent: Counter[str] = Counter()  # bytes by file name
        self.starts: list[tuple[str, int]] = []  # file names, and the byte that was asked for
        self.requests: list[str] = []  # paths
        self.authorised: list[str] = []  # paths of the other origin that came with a token
        self.token: str | None = None  # what opens gated and private repositories, and writes
        self.owners = {"org"}  # to whose repositories it may write
        self.part: int | None = None  # bytes; larger files are received in parts of this size
        self.full = False  # no room for large files
        self.received = Received()
        self.lock = threading.Lock()
        self.switch = threading.Lock()  # a start waits for the stop before it
        # bound as long as the hub lives, and never listening: while it is stopped, nothing else gets its ports
        self.held = [socket.socket() for _ in range(2)]
        for held in self.held:
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            held.bind(("127.0.0.1", 0))
        self.port, self.other_port = (held.getsockname()[1] for held in self.held)
        self.servers: list[ThreadingHTTPServer] = []
        self.connections: list[socket.socket] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def add(self, name: str, folder: Path, branch: str = "main") -> str:
        """Commit the files of a folder; returns the commit."""
        files = {
            str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()
        }
        return self.repos.setdefault(name, Repo()).commit(files, branch)

    def make(self, name: str, files: dict[str, bytes], **settings) -> None:
        self.repos[name] = Repo(**settings)
        self.repos[name].commit(files)

    def fault(self, path: str, **what) -> None:
        self.faults.append(Fault(path, **what))

    def start(self) -> None:
        """Listen; after a stop on the same ports."""
        handler = type("Handler", (_Handler,), {"hub": self})
        with self.switch:
            self.servers = [
                ThreadingHTTPServer(("127.0.0.1", port), handler) for port in (self.port, self.other_port)
            ]
            for server in self.servers:
                server.daemon_threads = True
                threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Close the ports and every connection."""
        with self.switch:
            for server in self.servers:
                server.shutdown()
                server.server_close()
            for connection in self.connections:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
            self.servers, self.connections = [], []

    def take_fault(self, path: str) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                if fault.times and re.search(fault.path, path):
                    fault.times -= 1
                    return fault
        return None


def is_large(name: str) -> bool:
    return name.endswith(LARGE)


class _Handler(Receiving, BaseHTTPRequestHandler):
    hub: Hub
    is_large, oid = staticmethod(is_large), staticmethod(oid)
    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.hub.connections.append(self.connection)

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def do_POST(self):
        self.answer()

    def do_PUT(self):
        self.answer()

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        with self.hub.lock:
            self.hub.requests.append(path)
        fault = self.hub.take_fault(path)
        if fault and fault.status:
            if self.command != "GET":
                self.body()
            if fault.then:
                fault.then()
            return self.reply(fault.status, b"{}", fault.headers)
        if self.command in ("POST", "PUT"):
            return self.receive(path, fault)
        if match := re.fullmatch(r"/api/(models/|datasets/)(.+?)/tree/(.+)", path):
            kind, name, revision = match.groups()
            return self.tree(name if kind == "models/" else kind + name, revision)
        if match := re.fullmatch(r"/api/(models/|datasets/)(.+?)(?:/revision/(.+))?", path):
            kind, name, revision = match.groups()
            return self.info(name if kind == "models/" else kind + name, revision)
        if match := re.fullmatch(r"/(.+?)/resolve/([^/]+)/(.+)", path):
            return self.resolve(*match.groups(), fault)
        if match := re.fullmatch(r"/large/(.+)/([0-9a-f]{40})/(.+)", path):
            if self.headers.get("Authorization"):
                self.hub.authorised.append(path)
            repo, sha, name = match.groups()
            return self.content(name, self.hub.repos[repo].commits[sha][name], {}, fault)
        return self.reply(404, b"{}")

    def find(self, name: str, revision: str | None) -> tuple[Repo, str] | None:
        repo = self.hub.repos.get(name)
        if repo is None or (repo.private and self.headers.get("Authorization") != f"Bearer {self.hub.token}"):
            self.reply(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return None
        sha = repo.branches.get(revision or "main", revision)
        if sha not in repo.commits:
            self.reply(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return None
        return repo, sha

    def info(self, name: str, revision: str | None) -> None:
        if not (found := self.find(name, revision)):
            return
        repo, sha = found
        siblings = []
        for file, content in repo.commits[sha].items():
            size = repo.sizes.get(file, len(content))
            entry = {"rfilename": file, "size": size, "blobId": oid(content)}
            if is_large(file):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"sha256": digest, "size": size, "pointerSize": 134}
            siblings.append(entry)
        body = {
            "id": name.removeprefix("datasets/"),
            "sha": sha,
            "private": repo.private,
            "gated": repo.gated and "manual",
            "siblings": siblings,
        }
        self.reply(200, json.dumps(body).encode(), {"Content-Type": "application/json"})

    def tree(self, name: str, revision: str) -> None:
        """The files of a commit, as `hf download` lists them."""
        if not (found := self.find(name, revision)):
            return
        repo, sha = found
        entries = []
        for file, content in repo.commits[sha].items():
            entry = {"type": "file", "path": file, "size": len(content), "oid": oid(content)}
            if is_large(file):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
            entries.append(entry)
        self.reply(200, json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def resolve(self, name: str, revision: str, file: str, fault: Fault | None) -> None:
        if not (found := self.find(name, revision)):
            return
        repo, sha = found
        if repo.gated and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            status = 403 if self.headers.get("Authorization") else 401
            return self.reply(status, b"{}", {"X-Error-Code": "GatedRepo"})
        content = repo.commits[sha].get(file)
        if content is None:
            return self.reply(404, b"{}", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        headers = {"X-Repo-Commit": sha, "ETag": f'"{oid(content)}"'}
        if not is_large(file):
            return self.content(file, content, headers, fault)
        headers |= {
            "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"',
            "X-Linked-Size": str(len(content)),
            "Location": f"http://127.0.0.1:{self.hub.other_port}/large/{name}/{sha}/{file}",
        }
        return self.reply(302, b"", headers)

    def content(self, name: str, content: bytes, headers: dict[str, str], fault: Fault | None) -> None:
        if fault and fault.change:
            middle = len(content) // 2
            content = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        if fault and fault.shorten:
            content = content[: -fault.shorten]
        start, stop = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "bytes=0-")).groups()
        start, stop = int(start), min(int(stop or len(content)) + 1, len(content))
        self.hub.starts.append((name, start))
        if fault and fault.whole:
            start, stop = 0, len(content)
        if start and start >= len(content):
            return self.reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        part = stop - start < len(content)
        if part:
            headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(content)}"}
        return self.reply(206 if part else 200, content[start:stop], headers, fault, name)

    def reply(self, status: int, body: bytes, headers=(), fault: Fault | None = None, name: str = "") -> None:
        self.send_response(status)
        for key, value in dict(headers).items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault and fault.cut is not None:
            body = body[: fault.cut]
        for at in range(0, len(body), 1 << 14):
            try:
                self.wfile.write(body[at : at + (1 << 14)])
            except OSError:  # the reader was killed
                self.close_connection = True
                return
            with self.hub.lock:
                self.hub.sent[name] += len(body[at : at + (1 << 14)])
            if fault and fault.pause:
                time.sleep(fault.pause)
        if fault and fault.then:
            fault.then()
        if fault and fault.cut is not None:
            self.close_connection = True
