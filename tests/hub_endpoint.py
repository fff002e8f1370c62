"""A Hub of its own on this machine: repositories of data sets and models in memory, behind HTTP.

A test file takes the fixture by `pytest_plugins = ["clear_par.tests.hub_endpoint"]`. Written after
the requests that huggingface_hub makes: create, preupload, LFS batch and upload, commit, look-up,
tree and download.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import huggingface_hub
import pytest
from huggingface_hub import HfApi

LARGE = (".parquet", ".safetensors", ".png")


@dataclass
class Repository:
    """files: path -> content. lfs: paths whose content came by LFS. commits: paths of each."""

    private: bool
    kind: str = "dataset"
    files: dict[str, bytes] = field(default_factory=dict)
    lfs: set[str] = field(default_factory=set)
    commits: list[list[str]] = field(default_factory=list)

    def oid(self, path: str) -> str | None:
        """What git calls the content of a file; None without that file."""
        if path not in self.files:
            return None
        content = self.files[path]
        if path in self.lfs:
            return hashlib.sha256(content).hexdigest()
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()

    @property
    def sha(self) -> str:
        """A revision: 40 hexadecimal digits that follow the content."""
        digest = hashlib.sha1(str(len(self.commits)).encode())
        for path, content in sorted(self.files.items()):
            digest.update(path.encode() + b"\0" + content)
        return digest.hexdigest()


class HubEndpoint:
    """What the server knows.

    repositories: "owner/name" -> Repository. uploads: LFS uploads, by SHA-256, in order.
    refuse: parts of addresses that are answered with `refusal`, such as "/commit/".
    """

    refusal = 403

    def __init__(self, url: str):
        self.url = url
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.uploads: list[str] = []
        self.refuse: set[str] = set()

    def api(self) -> HfApi:
        """A client that is logged in here."""
        return HfApi(endpoint=self.url, token="hf_of_a_test")

    def address(self, kind: str, name: str) -> str:
        return f"{self.url}/{'datasets/' if kind == 'dataset' else ''}{name}"

    def create(self, body: dict) -> tuple[int, dict]:
        name = f"{body['organization']}/{body['name']}"
        kind = body.get("type") or "model"
        answer = {"url": self.address(kind, name)}
        if name in self.repositories:
            return 409, {**answer, "error": "You already created this repo"}
        is_private = body.get("private", body.get("visibility") == "private")
        self.repositories[name] = Repository(is_private, kind)
        return 200, answer

    def commit(self, name: str, lines: list[dict]) -> tuple[int, dict]:
        repository, paths = self.repositories[name], []
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                repository.files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                repository.files[value["path"]] = self.objects[value["oid"]]
                repository.lfs.add(value["path"])
            if line["key"] != "header":
                paths.append(value["path"])
        repository.commits.append(paths)
        sha = repository.sha
        url = f"{self.address(repository.kind, name)}/commit/{sha}"
        return 200, {"success": True, "commitUrl": url, "commitOid": sha, "hookOutput": ""}

    def batch(self, objects: list[dict]) -> tuple[int, dict]:
        answers = []
        for wanted in objects:
            href = f"{self.url}/lfs/{wanted['oid']}"
            actions = {} if wanted["oid"] in self.objects else {"upload": {"href": href}}
            answers.append({**wanted, "actions": actions} if actions else wanted)
        return 200, {"transfer": "basic", "objects": answers}

    def info(self, name: str) -> tuple[int, dict]:
        if name not in self.repositories:
            return 404, {"error": "Repository not found"}
        repository = self.repositories[name]
        siblings = [{"rfilename": path} for path in sorted(repository.files)]
        known = {"id": name, "sha": repository.sha, "private": repository.private}
        return 200, {**known, "siblings": siblings, "tags": []}

    def tree(self, name: str) -> tuple[int, list]:
        files = self.repositories[name].files
        return 200, [
            {"type": "file", "path": p, "size": len(c), "oid": hashlib.sha1(c).hexdigest()}
            for p, c in sorted(files.items())
        ]

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        """Status and content of one request; bytes are sent as they are."""
        parts = path.strip("/").split("/")
        if any(word in path for word in self.refuse):
            return self.refusal, {"error": "refused by the test"}
        if path == "/api/repos/create":
            return self.create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if method == "PUT" and parts[0] == "lfs":
            self.objects[parts[1]] = body
            self.uploads.append(parts[1])
            return 200, {}
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch(json.loads(body)["objects"])
        if parts[0] == "api" and parts[1] in ("datasets", "models") and len(parts) >= 4:
            return self._repository(f"{parts[2]}/{parts[3]}", parts[4:], body)
        if parts[0] == "datasets" and parts[3] == "resolve":
            repository = self.repositories[f"{parts[1]}/{parts[2]}"]
            return 200, repository.files["/".join(parts[5:])]
        return 404, {"error": f"no such address: {path}"}

    def _repository(self, name: str, rest: list[str], body: bytes) -> tuple[int, object]:
        if rest[:1] == ["preupload"]:
            modes = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": self.repositories[name].oid(f["path"]),
                }
                for f in json.loads(body)["files"]
            ]
            return 200, {"files": modes}
        if rest[:1] == ["commit"]:
            return self.commit(name, [json.loads(line) for line in body.splitlines()])
        if rest[:1] == ["tree"]:
            return self.tree(name)
        return self.info(name)


class _Handler(BaseHTTPRequestHandler):
    hub: HubEndpoint
    protocol_version = "HTTP/1.1"

    def _reply(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        status, content = self.hub.answer(self.command, path, body)
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        if isinstance(content, bytes):
            owner, name = path.split("/")[2:4]
            self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", self.hub.repositories[f"{owner}/{name}"].sha)
        else:
            self.send_header("Content-Type", "application/json")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = _reply

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub_endpoint(monkeypatch) -> Iterator[HubEndpoint]:
    """A running server, and this process online to it alone."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    hub = _Handler.hub = HubEndpoint(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    huggingface_hub.close_session()
    yield hub
    huggingface_hub.close_session()
    server.shutdown()
    server.server_close()
