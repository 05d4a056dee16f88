"""A loopback server that speaks the Hugging Face Hub's protocol, and its faults, to real clients.

Uploads travel inside the commit (`uploadMode: regular`), which needs no setting of the client; with
`lfs` large files go through LFS, as for a client with HF_HUB_DISABLE_XET.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

Files = dict[str, bytes]


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@dataclass
class Fault:
    """What goes wrong with requests that fit `METHOD /path`, so many times.

    `how`: a status; `drop` the connection unanswered, in the `middle` of what is sent, or `late`,
    once the request had its effect; `hang` until the server ends; `cut` the body in half; nothing
    but `then`, which happens first.
    """

    fits: str
    how: int | str | None = None
    times: int = 1_000
    headers: dict[str, str] = field(default_factory=dict)
    then: Callable[[], object] = bool


@dataclass
class Hub:
    """Repositories as lists of commits. With `users`, tokens to roles, what is private is so.

    A data set is the repository `datasets/user/name`.
    """

    repos: dict[str, list[tuple[str, Files]]] = field(default_factory=dict)
    branches: dict[tuple[str, str], str] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    users: dict[str, str] = field(default_factory=dict)
    large: tuple[str, ...] = (".bin", ".safetensors")
    lfs: bool = False
    stored: dict[str, bytes] = field(default_factory=dict)
    changed: dict[str, bytes] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    page: int = 100
    tokens: list[str | None] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    sent: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    lock: threading.RLock = field(default_factory=threading.RLock)

    def add(self, repo: str, files: Files, branch: str = "main") -> str:
        """A commit that holds exactly these files."""
        commits = self.repos.setdefault(repo, [])
        sha = hashlib.sha1(f"{repo} {len(commits)} {sorted(files.items())}".encode()).hexdigest()
        commits.append((sha, files))
        self.branches[repo, branch] = sha
        return sha

    def add_folder(self, repo: str, folder: Path, ending: tuple[str, ...] = ("",)) -> str:
        paths = (path for path in folder.rglob("*") if path.is_file())
        kept = (path for path in paths if path.name.endswith(ending))
        return self.add(repo, {p.relative_to(folder).as_posix(): p.read_bytes() for p in kept})

    def at(self, repo: str, revision: str = "main") -> tuple[str, Files] | None:
        sha = self.branches.get((repo, revision), revision)
        return next((found for found in self.repos[repo] if found[0] == sha), None)

    def files(self, repo: str, revision: str = "main") -> Files:
        found = self.at(repo, revision)
        assert found is not None
        return found[1]

    def merge(self, repo: str, number: int) -> None:
        self.branches[repo, "main"] = self.branches[repo, f"refs/pr/{number}"]

    def fault(self, request: str) -> Fault | None:
        """The next thing to go wrong with a request."""
        with self.lock:
            for fault in self.faults:
                if fault.times > 0 and re.search(fault.fits, request):
                    fault.times -= 1
                    return fault
        return None


class Refused(Exception):
    def __init__(self, status: int, code: str = "", message: str = "", **body: Any) -> None:
        self.status, self.body = status, _json(body)
        self.headers = {"X-Error-Code": code, "X-Error-Message": message}


@dataclass(frozen=True)
class Asked:
    """A request. `role` is what its token may do: read, write, or None without one."""

    method: str
    path: str
    query: dict[str, list[str]]
    body: bytes
    host: str
    role: str | None

    @property
    def data(self) -> Any:
        return json.loads(self.body)


class Handler(BaseHTTPRequestHandler):
    """Serves the hub that a subclass has."""

    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: Any) -> None: ...

    def handle_one(self) -> None:
        hub, request = self.hub, f"{self.command} {self.path}"
        fault = hub.fault(request)
        how = fault.how if fault else None
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length // 2 if how == "middle" else length)
        hub.tokens.append(self.headers.get("Authorization"))
        hub.requests.append(request)
        if fault is not None:
            fault.then()
        if how == "hang":
            hub.ended.wait(60)
        if how in ("hang", "drop", "middle"):
            return self.leave()
        try:
            if fault is not None and isinstance(how, int):
                raise Refused(how, fault.headers.get("X-Error-Code", ""))
            with hub.lock:
                status, headers, data = 200, *self.answered(body)
        except Refused as refused:
            status, headers, data = refused.status, refused.headers, refused.body
        if how == "late":
            return self.leave()
        self.reply(status, headers | (fault.headers if fault else {}), data, how == "cut")
        return None

    def answered(self, body: bytes) -> tuple[dict[str, str], bytes]:
        hub, parts = self.hub, urlsplit(self.path)
        role = role_of(hub, self.headers.get("Authorization"))
        host = f"http://{self.headers['Host']}"
        query = parse_qs(parts.query)
        return answer(hub, Asked(self.command, parts.path, query, body, host, role))

    def reply(self, status: int, headers: dict[str, str], data: bytes, cut: bool) -> None:
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if span and status == 200 and "ETag" in headers:
            stop = int(span[2]) + 1 if span[2] else len(data)
            where = f"bytes {span[1]}-{min(stop, len(data)) - 1}/{len(data)}"
            status, headers = 206, headers | {"Content-Range": where}
            data = data[int(span[1]) : stop]
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.hub.sent += len(data)
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.leave()

    def leave(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = handle_one


class Server(ThreadingHTTPServer):
    daemon_threads = True
    hub: Hub

    def server_close(self) -> None:
        self.hub.ended.set()
        super().server_close()

    def handle_error(self, *arguments: Any) -> None: ...


def serve(hub: Hub, port: int = 0) -> Server:
    server = Server(("127.0.0.1", port), type("Bound", (Handler,), {"hub": hub}))
    server.hub = hub
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    return server


def role_of(hub: Hub, header: str | None) -> str | None:
    if not hub.users:
        return "write"
    if header is None:
        return None
    role = hub.users.get(header.removeprefix("Bearer "))
    if role is None:
        raise Refused(401, "", "Invalid credentials in Authorization header")
    return role


def answer(hub: Hub, asked: Asked) -> tuple[dict[str, str], bytes]:
    path = asked.path
    if path == "/api/models":
        return _search(hub, asked)
    if path == "/api/whoami-v2":
        return {}, _json({"name": "me", "orgs": [], "auth": {"accessToken": {"role": asked.role}}})
    if path == "/api/validate-yaml":
        return {}, _validated(asked.data["content"])
    if path == "/api/repos/create":
        return {}, _create(hub, asked)
    if path.startswith("/lfs/"):
        return {}, _store(hub, asked)
    found = re.fullmatch(
        r"(?:/api/models|/api(?=/datasets/))?/((?:datasets/)?[^/]+/[^/]+?)(?:\.git/info)?"
        r"(?:/(refs|[a-z-]+)(?:/(.*))?)?",
        path,
    )
    if found is None:
        raise Refused(404)
    repo, action, rest = found[1], found[2] or "revision", found[3] or "main"
    if repo in hub.gated:
        raise Refused(403, "GatedRepo", "Access to it is restricted")
    if repo not in hub.repos or (repo in hub.private and asked.role is None):
        status = 404 if asked.role else 401
        raise Refused(status, "RepoNotFound", "Repository not found")
    writes = {"commit", "branch", "preupload", "lfs"}
    if action in writes and asked.role != "write":
        raise Refused(403, "", "You don't have the rights required to push")
    return ACTIONS.get(action, _unknown)(hub, asked, repo, rest)


def _unknown(hub: Hub, asked: Asked, repo: str, rest: str) -> tuple[dict[str, str], bytes]:
    raise Refused(404)


def _state(hub: Hub, repo: str, revision: str) -> tuple[str, Files]:
    state = hub.at(repo, unquote(revision))
    if state is None:
        raise Refused(404, "RevisionNotFound", "Invalid rev id")
    return state


def _revision(hub: Hub, asked: Asked, repo: str, rest: str) -> tuple[dict[str, str], bytes]:
    return {}, _json(_info(hub, repo, _state(hub, repo, rest)))


def _tree(hub: Hub, asked: Asked, repo: str, rest: str) -> tuple[dict[str, str], bytes]:
    _, files = _state(hub, repo, rest)
    return _paged(hub, asked, [_entry(hub, name, data) for name, data in files.items()])


def _resolve(hub: Hub, asked: Asked, repo: str, rest: str) -> tuple[dict[str, str], bytes]:
    revision, _, path = rest.partition("/")
    sha, files = _state(hub, repo, revision)
    path = unquote(path)
    if path not in files:
        raise Refused(404, "EntryNotFound", "Entry not found")
    entry = _entry(hub, path, files[path])
    etag = entry["lfs"]["oid"] if "lfs" in entry else entry["oid"]
    headers = {"X-Repo-Commit": sha, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
    return headers, hub.changed.get(path, files[path])


def _refs(hub: Hub, asked: Asked, repo: str, rest: str) -> tuple[dict[str, str], bytes]:
    found = [(name, sha) for (owner, name), sha in hub.branches.items() if owner == repo]
    listed = [
        {"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha}
        for name, sha in found
        if not name.startswith("refs/")
    ]
    return {}, _json({"branches": listed, "tags": [], "converts": []})


def _commits(hub: Hub, asked: Asked, repo: str, rest: str) -> tuple[dict[str, str], bytes]:
    listed = [
        {"id": sha, "title": "", "message": "", "date": "2026-01-01T00:00:00Z", "authors": []}
        for sha, _ in reversed(hub.repos[repo])
    ]
    return _paged(hub, asked, listed)


def _branch(hub: Hub, asked: Asked, repo: str, rest: str) -> tuple[dict[str, str], bytes]:
    name = unquote(rest)
    if asked.method == "DELETE":
        del hub.branches[repo, name]
    elif (repo, name) in hub.branches:
        raise Refused(409, "", "Reference already exists")
    else:
        start = asked.data.get("startingPoint") if asked.body else None
        hub.branches[repo, name] = _state(hub, repo, start or "main")[0]
    return {}, b"{}"


def _preupload(hub: Hub, asked: Asked, repo: str, rest: str) -> tuple[dict[str, str], bytes]:
    _, held = _state(hub, repo, rest)
    files = []
    for wanted in asked.data["files"]:
        path = wanted["path"]
        mode = "lfs" if hub.lfs and path.endswith(hub.large) else "regular"
        old = (sha256 if mode == "lfs" else blob)(held[path]) if path in held else None
        files.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": old})
    return {}, _json({"files": files})


def _batch(hub: Hub, asked: Asked, repo: str, rest: str) -> tuple[dict[str, str], bytes]:
    """What is stored already gets no action: an interrupted push goes on where it was."""
    objects = []
    for wanted in asked.data["objects"]:
        entry = {"oid": wanted["oid"], "size": wanted["size"]}
        if wanted["oid"] not in hub.stored:
            upload = {"href": f"{asked.host}/lfs/{wanted['oid']}?signed=1", "header": {}}
            entry["actions"] = {"upload": upload}
        objects.append(entry)
    return {}, _json({"transfer": "basic", "objects": objects})


def _store(hub: Hub, asked: Asked) -> bytes:
    oid = asked.path.split("/")[-1]
    if "signed" not in asked.query or sha256(asked.body) != oid:
        raise Refused(400, "", "the bytes are not those of the object")
    hub.stored[oid] = asked.body
    return b"{}"


def _commit(hub: Hub, asked: Asked, repo: str, rest: str) -> tuple[dict[str, str], bytes]:
    sha, held = _state(hub, repo, rest)
    files = dict(held)
    for line in asked.body.splitlines():
        step = json.loads(line)
        key, value = step["key"], step["value"]
        if key == "header" and value.get("parentCommit", sha) != sha:
            raise Refused(412, "", "A commit has happened since. Please refresh and try again.")
        if ".." in value.get("path", "").split("/"):
            raise Refused(400, "", "Invalid path")
        if key == "file":
            files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            files[value["path"]] = hub.stored[value["oid"]]
        elif key == "deletedFile":
            del files[value["path"]]
    branch = unquote(rest)
    made: dict[str, str] = {}
    if asked.query.get("create_pr") == ["1"]:
        number = 1 + sum(owner == repo and "refs/pr/" in ref for owner, ref in hub.branches)
        branch = f"refs/pr/{number}"
        made["pullRequestUrl"] = f"{asked.host}/{repo}/discussions/{number}"
    sha = hub.add(repo, files, branch)
    return {}, _json(made | {"commitOid": sha, "commitUrl": f"{asked.host}/{repo}/commit/{sha}"})


ACTIONS = {
    "revision": _revision,
    "tree": _tree,
    "resolve": _resolve,
    "refs": _refs,
    "commits": _commits,
    "branch": _branch,
    "preupload": _preupload,
    "lfs": _batch,
    "commit": _commit,
}


def _create(hub: Hub, asked: Asked) -> bytes:
    given = asked.data
    repo = "/".join(part for part in (given["organization"], given["name"]) if part)
    url = {"url": f"{asked.host}/{repo}"}
    if asked.role is None:
        raise Refused(401, "", "Invalid username or password.")
    if asked.role != "write":
        raise Refused(403, "", "You don't have the rights to create a model under this namespace")
    if repo in hub.repos:
        raise Refused(409, "", "You already created this model repo", **url)
    hub.add(repo, {".gitattributes": b"*.bin filter=lfs\n"})
    if given.get("visibility") == "private" or given.get("private"):
        hub.private.add(repo)
    return _json(url)


def _validated(page: str) -> bytes:
    """What the Hub refuses of a card: front matter that is no YAML, or lists with nothing in."""
    try:
        found = _front(page)
    except yaml.YAMLError as error:
        raise Refused(400, "", "Invalid YAML", errors=[{"message": str(error)}]) from None
    for name in ("datasets", "language", "tags"):
        if None in (found.get(name) or []):
            message = f'"{name}[0]" must be a string'
            raise Refused(400, "", message, errors=[{"message": message}])
    return _json({"errors": [], "warnings": []})


def _front(page: str) -> dict[str, Any]:
    match = re.match(r"---\n(.*?)\n---", page, re.DOTALL)
    return (yaml.safe_load(match[1]) if match else None) or {}


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value] if value else []


def _info(hub: Hub, repo: str, state: tuple[str, Files]) -> dict[str, Any]:
    sha, files = state
    front = _front(files.get("README.md", b"").decode())
    bases = _listed(front.get("base_model"))
    tags = [
        *_listed(front.get("tags")),
        *_listed(front.get("library_name")),
        *_listed(front.get("language")),
        *(f"dataset:{name}" for name in _listed(front.get("datasets"))),
        *(f"license:{name}" for name in _listed(front.get("license"))),
        *(f"base_model:{base}" for base in bases),
        *(f"base_model:adapter:{base}" for base in bases if front.get("base_model_relation")),
    ]
    known = {name: front[name] for name in ("library_name", "pipeline_tag") if name in front}
    shown = {"cardData": front, "private": repo in hub.private, "gated": False, "downloads": 1}
    siblings = [{"rfilename": name} for name in files]
    return {"id": repo, "sha": sha, "tags": tags, "siblings": siblings, **shown, **known}


def _entry(hub: Hub, path: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": path, "oid": blob(data), "size": len(data)}
    if path.endswith(hub.large):
        entry["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 130}
    return entry


def _search(hub: Hub, asked: Asked) -> tuple[dict[str, str], bytes]:
    query = asked.query
    found = []
    for repo in hub.repos:
        state = hub.at(repo)
        if state is None or (repo in hub.private and asked.role is None):
            continue
        info = _info(hub, repo, state)
        fits = query.get("author", [repo.split("/")[0]])[0] == repo.split("/")[0]
        fits = fits and query.get("search", [""])[0].lower() in repo.lower()
        if fits and {*query.get("filter", [])} <= {*info["tags"]}:
            found.append(info)
    return _paged(hub, asked, found)


def _paged(hub: Hub, asked: Asked, entries: list[Any]) -> tuple[dict[str, str], bytes]:
    start = int(asked.query.get("cursor", ["0"])[0])
    headers, stop = {}, start + hub.page
    if stop < len(entries):
        more = "&".join(
            f"{name}={value}"
            for name, values in asked.query.items()
            for value in values
            if name != "cursor"
        )
        headers["Link"] = f'<{asked.host}{asked.path}?{more}&cursor={stop}>; rel="next"'
    return headers, _json(entries[start:stop])


def _json(data: Any) -> bytes:
    return json.dumps(data).encode()
