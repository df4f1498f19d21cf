"""The hub's writing half: repositories made, large files received the LFS way, commits.

Large files go to the other origin, in one piece or in several; the hub keeps each under its sha256 whether a
commit names it yet or not, as huggingface.co does.
"""

import base64
import hashlib
import json
import re
import time
from collections import Counter
from dataclasses import dataclass, field

import yaml

LFS = "application/vnd.git-lfs+json"
LICENCES = ("apache-2.0", "mit", "llama3", "other")


@dataclass
class Received:
    """What has been sent to a hub."""

    objects: dict[str, bytes] = field(default_factory=dict)  # by sha256
    parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    bytes: Counter[str] = field(default_factory=Counter)  # by sha256, also of what broke off
    commits: list[dict] = field(default_factory=list)  # headers


class Receiving:
    """Request handlers, mixed into the hub's; `self.hub` is the hub."""

    def receive(self, path: str, fault) -> None:
        if match := re.fullmatch(r"/put/([0-9a-f]{64})(?:/(\d+))?", path):
            return self.put(match[1], int(match[2] or 0), fault)
        body = self.body()
        if path == "/api/validate-yaml":
            return self.validate(json.loads(body))
        if path == "/api/repos/create":
            return self.create(json.loads(body)) if self.may_write(json.loads(body)["organization"]) else None
        if match := re.fullmatch(r"/complete/([0-9a-f]{64})", path):
            return self.complete(match[1], json.loads(body))
        for pattern, handle in (
            (r"/api/models/(.+?)/preupload/main", self.preupload),
            (r"/(.+?)\.git/info/lfs/objects/batch", self.batch),
            (r"/(.+?)\.git/info/lfs/verify", self.verify),
            (r"/api/models/(.+?)/commit/main", self.commit),
        ):
            if match := re.fullmatch(pattern, path):
                if not self.may_write(match[1].partition("/")[0]):
                    return None
                if match[1] not in self.hub.repos:
                    return self.reply(404, b"{}", {"X-Error-Code": "RepoNotFound"})
                return handle(match[1], body, fault)
        return self.reply(404, b"{}")

    def body(self) -> bytes:
        return b"".join(self.pieces())

    def pieces(self):
        """The body of the request as it comes, whichever way its length is told."""
        if self.headers.get("Transfer-Encoding") != "chunked":
            left = int(self.headers.get("Content-Length", 0))
            while left and (piece := self.rfile.read(min(left, 1 << 14))):
                left -= len(piece)
                yield piece
            return
        while size := int(self.rfile.readline() or b"0", 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def answer_json(self, status: int, content: dict, fault=None, kind: str = "application/json") -> None:
        self.reply(status, json.dumps(content).encode(), {"Content-Type": kind}, fault)

    def may_write(self, owner: str) -> bool:
        if not self.hub.token or self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            self.answer_json(401, {"error": "Invalid username or password."})
        elif owner not in self.hub.owners:
            self.answer_json(403, {"error": f"You don't have the rights to write to {owner}"})
        else:
            return True
        return False

    def create(self, asked: dict) -> None:
        name = f"{asked['organization']}/{asked['name']}"
        there = name in self.hub.repos
        if not there:
            attributes = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
            self.hub.make(name, {".gitattributes": attributes}, private=asked.get("visibility") == "private")
        self.answer_json(409 if there else 200, {"url": f"{self.hub.url}/{name}"})

    def validate(self, asked: dict) -> None:
        """The hub's own check of a card's metadata, which knows a list of licences."""
        metadata = yaml.safe_load(asked["content"].split("---\n")[1])
        known = metadata.get("license") in LICENCES
        said = f'"license" must be one of [{", ".join(LICENCES)}], {self.headers["Authorization"]}'
        errors = [] if known else [{"message": said}]
        self.answer_json(400 if errors else 200, {"errors": errors, "warnings": []})

    def preupload(self, name: str, body: bytes, fault) -> None:
        repo = self.hub.repos[name]
        files = repo.commits[repo.branches["main"]]
        said = []
        for asked in json.loads(body)["files"]:
            large = self.is_large(asked["path"])
            there = files.get(asked["path"])
            named = (hashlib.sha256(there).hexdigest() if large else self.oid(there)) if there else None
            mode = "lfs" if large else "regular"
            said.append({"path": asked["path"], "uploadMode": mode, "shouldIgnore": False, "oid": named})
        self.answer_json(200, {"files": said})

    def batch(self, name: str, body: bytes, fault) -> None:
        said = []
        for asked in json.loads(body)["objects"]:
            oid, size = asked["oid"], asked["size"]
            if self.hub.full:
                said.append({**asked, "error": {"code": 403, "message": "Storage limit reached"}})
                continue
            if oid in self.hub.received.objects:
                said.append(asked)
                continue
            there = f"http://127.0.0.1:{self.hub.other_port}/put/{oid}"
            upload = {"href": there}
            if self.hub.part and size > self.hub.part:
                count = -(-size // self.hub.part)
                parts = {f"{number:05d}": f"{there}/{number}" for number in range(1, count + 1)}
                upload = {
                    "href": f"{self.hub.url}/complete/{oid}",
                    "header": {"chunk_size": str(self.hub.part), **parts},
                }
            verify = {"href": f"{self.hub.url}/{name}.git/info/lfs/verify"}
            said.append({**asked, "actions": {"upload": upload, "verify": verify}})
        self.answer_json(200, {"transfer": "basic", "objects": said}, kind=LFS)

    def put(self, oid: str, part: int, fault) -> None:
        if self.headers.get("Authorization"):
            self.hub.authorised.append(self.path)
        content = b""
        for piece in self.pieces():
            content += piece
            with self.hub.lock:
                self.hub.received.bytes[oid] += len(piece)
            if fault and fault.pause:
                time.sleep(fault.pause)
            if fault and fault.cut is not None and len(content) >= fault.cut:
                if fault.then:
                    fault.then()
                self.close_connection = True
                return None
        if part:
            self.hub.received.parts[oid, part] = content
        elif hashlib.sha256(content).hexdigest() != oid:
            return self.reply(400, b"")
        else:
            self.hub.received.objects[oid] = content
        return self.reply(200, b"", {"ETag": f'"{hashlib.md5(content).hexdigest()}"'})

    def complete(self, oid: str, asked: dict) -> None:
        content = b""
        for part in asked["parts"]:
            piece = self.hub.received.parts[oid, part["partNumber"]]
            assert part["etag"] == f'"{hashlib.md5(piece).hexdigest()}"'
            content += piece
        if hashlib.sha256(content).hexdigest() != oid:
            return self.reply(400, b"")
        self.hub.received.objects[oid] = content
        return self.answer_json(200, {})

    def verify(self, name: str, body: bytes, fault) -> None:
        asked = json.loads(body)
        there = self.hub.received.objects.get(asked["oid"], b"")
        self.answer_json(200 if len(there) == asked["size"] else 404, {})

    def commit(self, name: str, body: bytes, fault) -> None:
        repo, header = self.hub.repos[name], {}
        files = dict(repo.commits[repo.branches["main"]])
        for line in body.decode().splitlines():
            key, value = json.loads(line)["key"], json.loads(line)["value"]
            if key == "header":
                header = value
            elif key == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                if value["oid"] not in self.hub.received.objects:
                    return self.answer_json(400, {"error": f"LFS object {value['oid']} is not there"})
                files[value["path"]] = self.hub.received.objects[value["oid"]]
            elif key == "deletedFile":
                del files[value["path"]]
        if header.get("parentCommit", repo.branches["main"]) != repo.branches["main"]:
            return self.answer_json(
                412, {"error": "A commit has happened since. Please refresh and try again."}
            )
        sha = repo.commit(files)
        self.hub.received.commits.append(header)
        url = f"{self.hub.url}/{name}/commit/{sha}"
        return self.answer_json(200, {"success": True, "commitOid": sha, "commitUrl": url}, fault)
