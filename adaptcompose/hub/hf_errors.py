"""Exceptions of the Hub's client as diagnostics: each becomes one message with a remedy."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adaptcompose.diagnostics.codes import (
    AC401,
    AC402,
    AC404,
    AC405,
    AC413,
    AC415,
    AC419,
    AC420,
    AC430,
    AC431,
)
from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed
from adaptcompose.syntax.references import is_repo_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_TOKEN = re.compile(r"invalid (credentials|user token|username)|token (is|was|has been)", re.I)
_WAIT = re.compile(r"\bt=(\d+)")


@dataclass(frozen=True)
class HubRequest:
    """A request to a hub, as messages describe it.

    `known` returns the branches and tags of the repository, for the message about an unknown one.
    """

    hub: str
    endpoint: str
    repo: str
    revision: str | None = None
    is_push: bool = False
    known: Callable[[], str] | None = None

    @property
    def label(self) -> str:
        return f"{self.repo}@{self.revision[:12]}" if self.revision else self.repo

    @property
    def terms(self) -> str:
        return f"run `hf auth login`, then accept the terms at {self.endpoint}/{self.repo}"


@contextlib.contextmanager
def translate_errors(request: HubRequest) -> Iterator[None]:
    """Raise the exceptions of the client as Failed with one diagnostic."""
    try:
        yield
    except Failed:
        raise
    except (OSError, ValueError, RuntimeError, _transport_errors()) as error:
        raise Failed(diagnose(error, request)) from None


def diagnose(error: BaseException, request: HubRequest) -> Diagnostic:
    """The diagnostic for an exception of the client, by its root cause."""
    errors = _errors()
    cause = _root_cause(error)
    if isinstance(cause, errors.HFValidationError) and not is_repo_name(request.repo):
        return AC420.at(name=request.repo)
    if isinstance(cause, errors.OfflineModeIsEnabled) or _is_offline():
        return AC405.at(name=request.label)
    if isinstance(cause, errors.HfHubHTTPError):
        return _response_diagnostic(cause, request)
    if isinstance(cause, errors.EntryNotFoundError) and not isinstance(
        cause, errors.LocalEntryNotFoundError
    ):
        return AC413.at(file=request.label, why="a file is missing on the hub")
    if request.is_push:
        return AC415.at(repo=request.repo, why=reason(cause))
    return AC419.at(hub=request.hub, why=reason(cause))


def _response_diagnostic(error: Any, request: HubRequest) -> Diagnostic:
    """The diagnostic for an answer of the Hub, by its status and error code."""
    errors = _errors()
    status = getattr(error.response, "status_code", 0)
    if status == 401 and _TOKEN.search(_message(error)):
        return AC430.at(hub=request.hub, why=reason(error))
    if isinstance(error, errors.GatedRepoError | errors.DisabledRepoError):
        return AC404.at(repo=request.repo, help=request.terms)
    if isinstance(error, errors.RevisionNotFoundError):
        known = request.known() if request.known is not None else "`main`"
        return AC402.at(repo=request.repo, revision=str(request.revision), known=known)
    if isinstance(error, errors.EntryNotFoundError):
        return AC413.at(file=request.label, why="a file is missing on the hub")
    if request.is_push:
        return _push_diagnostic(error, status, request)
    if isinstance(error, errors.RepositoryNotFoundError):
        help = f"check the name; if the repository is private, {request.terms}"
        return AC401.at(repo=request.repo, hub=request.hub, help=help)
    if status in (401, 403):
        return AC404.at(repo=request.repo, help=request.terms)
    return AC419.at(hub=request.hub, why=reason(error), help=_retry_help(error))


def _push_diagnostic(error: Any, status: int, request: HubRequest) -> Diagnostic:
    if status in (409, 412):
        return AC431.at(repo=request.repo)
    help = _retry_help(error)
    if status in (401, 403) or isinstance(error, _errors().RepositoryNotFoundError):
        help = "run `hf auth login` with a token that has write access"
    return AC415.at(repo=request.repo, why=reason(error), help=help)


def _retry_help(error: Any) -> str | None:
    """The time after which a busy hub accepts requests again, as a remedy."""
    headers = getattr(error.response, "headers", {})
    wait = _WAIT.search(str(headers.get("ratelimit", "")))
    seconds = wait[1] if wait else str(headers.get("retry-after", ""))
    return f"try again in {seconds} s" if seconds.isdecimal() else None


def _root_cause(error: BaseException) -> BaseException:
    """The cause of an exception: the answer of the hub if there was one, else the innermost error.

    The client wraps both in errors of its own, such as one about a missing file in the cache.
    """
    decisive = (_errors().HfHubHTTPError, _errors().OfflineModeIsEnabled)
    while not isinstance(error, decisive) and error.__cause__ is not None:
        error = error.__cause__
    return error


def reason(error: BaseException) -> str:
    """The first line of an error, short and safe for a terminal."""
    text = _message(error).strip() or type(error).__name__
    return "".join(filter(str.isprintable, text.splitlines()[0][:200]))


def _message(error: BaseException) -> str:
    return str(getattr(error, "server_message", None) or error)


def _is_offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _errors() -> Any:
    from huggingface_hub import errors

    return errors


def _transport_errors() -> Any:
    return _errors().HTTPError
