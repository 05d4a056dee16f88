"""A loopback server that speaks enough of the Hugging Face Hub's protocol for one client."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

Files = dict[str, bytes]


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class Hub:
    """Repositories as lists of commits; `large` files are answered as LFS, `changed` damaged."""

    repos: dict[str, list[tuple[str, Files]]] = field(default_factory=dict)
    branches: dict[tuple[str, str], str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    large: tuple[str, ...] = (".bin",)
    changed: dict[str, bytes] = field(default_factory=dict)
    commits_refused: int = 0
    tokens: list[str | None] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    sent: int = 0

    def add(self, repo: str, files: Files) -> str:
        commits = self.repos.setdefault(repo, [])
        sha = hashlib.sha1(f"{repo} {len(commits)} {sorted(files.items())}".encode()).hexdigest()
        commits.append((sha, files))
        self.branches[repo, "main"] = sha
        return sha

    def at(self, repo: str, revision: str) -> tuple[str, Files] | None:
        sha = self.branches.get((repo, revision), revision)
        return next((found for found in self.repos[repo] if found[0] == sha), None)


class Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        self.status, self.headers = status, {"X-Error-Code": code, "X-Error-Message": message}


def serve(hub: Hub) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments: Any) -> None: ...

        def handle_one(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(length)
            hub.tokens.append(self.headers.get("Authorization"))
            hub.requests.append(f"{self.command} {self.path}")
            try:
                status, headers, data = 200, *answer(hub, self.command, self.path, body)
            except Refused as refused:
                status, headers, data = refused.status, refused.headers, b"{}"
            wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range") or "")
            if wanted and status == 200:
                status, data = 206, data[int(wanted[1]) : int(wanted[2]) + 1]
            hub.sent += len(data)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_HEAD = do_POST = handle_one

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def answer(hub: Hub, command: str, target: str, body: bytes) -> tuple[dict[str, str], bytes]:
    path, query = urlsplit(target).path, parse_qs(urlsplit(target).query)
    if path == "/api/models":
        return {}, _json(_search(hub, query))
    if path in ("/api/repos/create", "/api/validate-yaml"):
        given = json.loads(body)
        if path.endswith("create"):
            repo = "/".join(part for part in (given["organization"], given["name"]) if part)
            if hub.repos.get(repo) is None:
                hub.add(repo, {})
            return {}, _json({"url": f"http://127.0.0.1/{repo}"})
        return {}, _json({"errors": [], "warnings": []})
    found = re.fullmatch(r"(?:/api/models)?/([^/]+/[^/]+?)(?:/([a-z]+)(?:/(.*))?)?", path)
    if found is None:
        raise Refused(404)
    repo, action, rest = found[1], found[2] or "revision", unquote(found[3] or "main")
    if repo in hub.gated:
        raise Refused(403, "GatedRepo", "Access to it is restricted")
    if repo not in hub.repos:
        raise Refused(404, "RepoNotFound", "Repository not found")
    return _in_repo(hub, (repo, action, rest), body)


def _in_repo(hub: Hub, what: tuple[str, str, str], body: bytes) -> tuple[dict[str, str], bytes]:
    repo, action, rest = what
    if action in ("refs", "commits", "preupload", "commit"):
        return {}, _of_repo(hub, repo, action, body)
    revision, _, path = rest.partition("/") if action == "resolve" else (rest, "", "")
    state = hub.at(repo, revision)
    if state is None:
        raise Refused(404, "RevisionNotFound", "Invalid rev id")
    sha, files = state
    if action == "revision":
        return {}, _json({"id": repo, "sha": sha})
    if action == "tree":
        return {}, _json([_entry(hub, name, data) for name, data in files.items()])
    if path not in files:
        raise Refused(404, "EntryNotFound", "Entry not found")
    data, entry = hub.changed.get(path, files[path]), _entry(hub, path, files[path])
    etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
    return {"X-Repo-Commit": sha, "ETag": f'"{etag}"'}, data


def _of_repo(hub: Hub, repo: str, action: str, body: bytes) -> bytes:
    if action == "refs":
        names = [(name, sha) for (owner, name), sha in hub.branches.items() if owner == repo]
        branches = [
            {"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in names
        ]
        return _json({"branches": branches, "tags": [], "converts": []})
    if action == "commits":
        listed = [
            {"id": sha, "title": "", "message": "", "date": "2026-01-01T00:00:00Z", "authors": []}
            for sha, _ in reversed(hub.repos[repo])
        ]
        return _json(listed)
    if action == "preupload":
        wanted = json.loads(body)["files"]
        modes = [
            {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in wanted
        ]
        return _json({"files": modes})
    return _commit(hub, repo, body)


def _entry(hub: Hub, path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "oid": blob(data), "size": len(data)}
    if path.endswith(hub.large):
        oid = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": oid, "size": len(data), "pointerSize": 130}
    return entry


def _commit(hub: Hub, repo: str, body: bytes) -> bytes:
    if hub.commits_refused:
        raise Refused(hub.commits_refused, "", "the disk of the server is full")
    files = dict(hub.repos[repo][-1][1])
    for line in body.splitlines():
        step = json.loads(line)
        if step["key"] == "file":
            files[step["value"]["path"]] = base64.b64decode(step["value"]["content"])
        elif step["key"] == "deletedFile":
            del files[step["value"]["path"]]
    sha = hub.add(repo, files)
    return _json({"commitOid": sha, "commitUrl": f"http://127.0.0.1/{repo}/commit/{sha}"})


def _search(hub: Hub, query: dict[str, list[str]]) -> list[dict[str, Any]]:
    author, words = query["author"][0], query.get("search", [""])[0]
    return [{"id": repo} for repo in hub.repos if repo.startswith(f"{author}/") and words in repo]


def _json(data: Any) -> bytes:
    return json.dumps(data).encode()
