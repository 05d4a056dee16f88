"""References in expressions, parsed from their text alone.

>>> parse_ref("lang/sw@houlsby", {"lang"})
Ref(kind='catalogue', space='lang', name='sw', variant='houlsby')
>>> parse_ref("user/repo@v2/sub/dir", {"lang"})
Ref(kind='hub', repo='user/repo', revision='v2', subfolder='sub/dir')
>>> str(parse_ref("hf://user/repo@refs/pr/3/sub", {"lang"}))
'hf://user/repo@refs/pr/3/sub'
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, unquote

from adaptcompose.diagnostics.codes import AC109, AC420
from adaptcompose.diagnostics.diagnostic import Failed, Span

if TYPE_CHECKING:
    from collections.abc import Collection

RefKind = Literal["bare", "catalogue", "hub", "local"]


@dataclass(frozen=True, repr=False)
class Ref:
    """A reference to an adapter, a fusion, a composition or a backbone; printing is its inverse.

    `bare` and `catalogue` have name and variant, `hub` has repo, revision and subfolder, `local`
    has a path. The name of a `bare` or `catalogue` reference may be a glob, and so may the repo of
    one with the prefix `hf://`. `revision` is a branch, a tag, 7 to 40 hex digits or `refs/pr/3`.
    """

    kind: RefKind
    space: str | None = None
    name: str | None = None
    variant: str | None = None
    repo: str | None = None
    revision: str | None = None
    subfolder: str | None = None
    path: str | None = None
    has_hub_prefix: bool = False

    @property
    def is_glob(self) -> bool:
        """Whether the reference is a glob, which can match several adapters."""
        return self.kind != "local" and is_glob(self.name or self.repo or "")

    def in_space(self, space: str) -> Ref:
        """The catalogue entry that a bare name means in a slot: a slot has the name of its space.

        >>> print(parse_ref("sw", ()).in_space("lang"))
        lang/sw
        """
        assert self.kind == "bare"
        return Ref("catalogue", space=space, name=self.name, variant=self.variant)

    def __str__(self) -> str:
        if self.kind == "local":
            return _print_path(self.path or "")
        if self.kind == "hub":
            revision = f"@{_encode(self.revision)}" if self.revision else ""
            subfolder = f"/{self.subfolder}" if self.subfolder else ""
            return f"{'hf://' if self.has_hub_prefix else ''}{self.repo}{revision}{subfolder}"
        space = f"{self.space}/" if self.space else ""
        return f"{space}{self.name}{f'@{self.variant}' if self.variant else ''}"

    def __repr__(self) -> str:
        values = ((field.name, getattr(self, field.name)) for field in fields(self))
        return f"Ref({', '.join(f'{name}={value!r}' for name, value in values if value)})"


def parse_ref(text: str, spaces: Collection[str], span: Span | None = None) -> Ref:
    """Parse a reference; `spaces` are the names of the catalogue's spaces.

    `x/y` is an entry of the catalogue if `x` is a space, and a repository of the hub otherwise;
    `hf://x/y` is always a repository of the Hugging Face Hub. A glob such as `x/*` always refers to
    the catalogue, so that a typo never reaches the network. A path with unusual characters must be
    in quotes. Raises AC109 or AC420.
    """
    if text[:1] in ('"', "'"):
        return local_ref(_unquote_path(text, span))
    if text.startswith("hf://"):
        return _hub_ref(text, text[5:], span)
    if text.startswith(("./", "../", "~/", "/")):
        return _local_ref(text, span)
    head, at, tail = text.partition("@")
    parts = head.split("/")
    if len(parts) == 1:
        return Ref("bare", name=_name(text, head, span), variant=_variant(text, at, tail, span))
    if parts[0] in spaces or is_glob(head):
        return _catalogue_ref(text, span)
    return _hub_ref(text, text, span)


def parse_repository_ref(
    text: str, span: Span | None = None, subfolder_help: str | None = None
) -> Ref:
    """Parse the reference of a backbone, a tokenizer or a data set: a repository or a folder.

    Raises AC420 for anything else. `subfolder_help` is the remedy if the text names a folder
    inside a repository; `{folder}` in it is replaced by the name of that folder.

    >>> print(parse_repository_ref("gpt2@v1"), parse_repository_ref("./my models/bert"))
    gpt2@v1 "./my models/bert"
    """
    if is_path(text):
        return local_ref(text)
    ref = parse_ref(text, (), span)
    if ref.kind == "bare" and not ref.is_glob:  # the oldest ones have names without a user
        ref = Ref("hub", repo=ref.name, revision=ref.variant)
    if ref.kind == "local" or (ref.kind == "hub" and not ref.is_glob and not ref.subfolder):
        return ref
    help = subfolder_help.format(folder=ref.subfolder) if subfolder_help and ref.subfolder else None
    raise Failed(AC420.at(span, name=text, help=help))


def is_path(text: str) -> bool:
    """Whether a text is a path on this machine."""
    return text.startswith((".", "/", "~"))


def local_ref(path: str) -> Ref:
    """The reference to a folder, whose path can contain any characters.

    >>> print(local_ref("my adapters/ner"))
    "my adapters/ner"
    """
    return Ref("local", path=path)


def is_glob(text: str) -> bool:
    """Whether a reference contains `*`, `?` or `{a,b}`."""
    return any(mark in text for mark in "*?{")


def matches_glob(pattern: str, name: str) -> bool:
    """Whether a glob matches a name: `*` any characters, `?` one character, `{a,b}` either.

    >>> [name for name in ("mnli", "qnli", "rte") if matches_glob("{q,m}nl?", name)]
    ['mnli', 'qnli']
    """
    return len(name) in _match_ends(pattern, name, {0})


def _match_ends(pattern: str, name: str, starts: set[int]) -> set[int]:
    """The indices at which a match of `pattern` can end, if it begins at one of `starts`.

    All candidates advance together: the time is polynomial, whatever the pattern.
    """
    for token in re.findall(r"\{[^{}]*\}|.", pattern):
        if not starts:
            return starts
        if token == "*":
            starts = set(range(min(starts), len(name) + 1))
        elif token.startswith("{"):
            starts = set().union(
                *(_match_ends(part, name, starts) for part in token[1:-1].split(","))
            )
        else:
            starts = {i + 1 for i in starts if i < len(name) and token in ("?", name[i])}
    return starts


_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_PATTERN = re.compile(r"(?:[A-Za-z0-9_.*?-]|\{[A-Za-z0-9_.,*?-]+\})+", re.ASCII)
_PLAIN_PATH = re.compile(r"(?:\.{1,2}/|~/|/)[A-Za-z0-9_.-]+(?:/[A-Za-z0-9_.-]+)*", re.ASCII)
_SPECIAL_REVISION = re.compile(r"refs/(?:pr/\d+|convert/[A-Za-z0-9_.-]+)(?=/|$)", re.ASCII)
_REPO_PART = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?", re.ASCII)


def is_repo_name(text: str) -> bool:
    """Whether a repository can have this name, by the rules of the Hugging Face Hub.

    >>> [is_repo_name(t) for t in ("user/repo", "gpt2", "a/b/c", "../x", "a/b.git", "a/b--c")]
    [True, True, False, False, False, False]
    """
    parts = text.split("/")
    return (
        len(parts) <= 2
        and len(text) <= 96
        and all(_REPO_PART.fullmatch(part) for part in parts)
        and not any(mark in text for mark in ("..", "--"))
        and not text.endswith(".git")
    )


def is_safe_path(text: str) -> bool:
    """Whether a relative path stays inside the folder it is joined to, on every system.

    >>> [is_safe_path(t) for t in ("a/b.bin", "../a", "/a", "a//b", "C:/a", ".git/hooks/x")]
    [True, False, False, False, False, False]
    """
    parts = text.split("/")
    return len(text) <= 1024 and all(
        part not in ("", ".", "..")
        and part.lower() != ".git"
        and len(part.encode("utf-8", "surrogatepass")) <= 200
        and not any(char in '\\:*?"<>|' or not char.isprintable() for char in part)
        and part == part.strip(" ").rstrip(".")
        for part in parts
    )


def _fail(text: str, why: str, span: Span | None, help: str | None = None) -> Failed:
    return Failed(AC109.at(span, name=text, why=why, help=help))


def _name(text: str, name: str, span: Span | None) -> str:
    pattern = _PATTERN if is_glob(name) else _NAME
    if not pattern.fullmatch(name) or ".." in name:
        why = f"`{name}` is not a valid name for an adapter" if name else "a part of it is empty"
        raise _fail(text, why, span)
    return name


def _variant(text: str, at: str, variant: str, span: Span | None) -> str | None:
    if not at:
        return None
    if not _NAME.fullmatch(variant) or ".." in variant:
        example = "write the name of a variant, as in `lang/sw@houlsby`"
        raise _fail(text, f"`{variant}` is not the name of a variant", span, example)
    return variant


def _catalogue_ref(text: str, span: Span | None) -> Ref:
    head, at, tail = text.partition("@")
    space, *rest = head.split("/")
    if is_glob(space):
        raise _fail(
            text,
            "the space before `/` cannot be a glob",
            span,
            "write the space out, as in `glue/*`",
        )
    if len(rest) != 1:
        raise _fail(text, f"an entry of `{space}/` has exactly one name after `{space}/`", span)
    name = _name(text, rest[0], span)
    return Ref("catalogue", space=space, name=name, variant=_variant(text, at, tail, span))


def _hub_ref(text: str, body: str, span: Span | None) -> Ref:
    head, at, tail = body.partition("@")
    has_hub_prefix = body is not text
    parts = head.split("/")
    if has_hub_prefix and len(parts) > 2 and parts[0] in ("datasets", "spaces"):
        raise _fail(text, f"it is one of the Hub's {parts[0]}, not a model", span)
    repo, inner = "/".join(parts[:2]), "/".join(parts[2:])
    is_pattern = is_glob(repo)
    sample = re.sub(r"\{[^{}]*\}|[*?]", "x", repo) if is_pattern else repo
    if not is_repo_name(sample) or (is_pattern and (len(parts) != 2 or is_glob(parts[0]))):
        raise Failed(AC420.at(span, name=repo))
    revision, subfolder = _split_revision(text, tail, span) if at else (None, inner)
    if inner and at:
        raise _fail(
            text, "`@` is not directly after the repository", span, "write `user/repo@rev/sub/dir`"
        )
    if is_pattern and (subfolder or is_glob(subfolder)):
        raise _fail(text, "a glob matches whole repositories, without a folder in them", span)
    if (inner or subfolder) and not is_safe_path(subfolder):
        raise _fail(text, f"`{subfolder}` is not a valid folder in a repository", span)
    return Ref(
        "hub",
        repo=repo,
        revision=revision,
        subfolder=subfolder or None,
        has_hub_prefix=has_hub_prefix,
    )


def _split_revision(text: str, tail: str, span: Span | None) -> tuple[str, str]:
    special = _SPECIAL_REVISION.match(tail)
    raw = special.group() if special else tail.partition("/")[0]
    subfolder = tail[len(raw) + 1 :]
    revision = raw if special else unquote(raw)
    if not is_revision(revision) or _encode(revision) != raw or tail.endswith("/"):
        example = "write a branch, tag or commit, as in `user/repo@main`"
        raise _fail(text, f"`{raw}` is not a valid revision", span, example)
    return revision, subfolder


def is_revision(text: str) -> bool:
    """Whether a branch, tag or commit can have this name."""
    return (
        is_safe_path(text)
        and not text.startswith("-")
        and not any(mark in f"/{text}" for mark in (" ", "~", "^", "[", "@{", "..", "/."))
    )


def _encode(revision: str | None) -> str:
    """A revision as written after `@`: a slash becomes `%2F`, because `/` starts the subfolder."""
    text = revision or ""
    return text if _SPECIAL_REVISION.fullmatch(text) else quote(text, safe="")


def _local_ref(text: str, span: Span | None) -> Ref:
    if is_glob(text):
        raise _fail(text, "globs match entries of the catalogue or the hub, not folders", span)
    if not _PLAIN_PATH.fullmatch(text):
        raise _fail(text, "it has unusual characters", span, f'put it in quotes: `"{text}"`')
    return Ref("local", path=text)


def _unquote_path(text: str, span: Span | None) -> str:
    if len(text) < 3 or text[-1] != text[0]:
        raise _fail(text, "the path is empty", span)
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _print_path(path: str) -> str:
    if _PLAIN_PATH.fullmatch(path):
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'


_RENAMED = {
    "albert": "albert-base-v1 albert-base-v2 albert-large-v1 albert-large-v2 albert-xlarge-v1"
    " albert-xlarge-v2 albert-xxlarge-v1 albert-xxlarge-v2",
    "almanach": "camembert-base",
    "distilbert": "distilbert-base-cased distilbert-base-cased-distilled-squad"
    " distilbert-base-german-cased distilbert-base-multilingual-cased distilbert-base-uncased"
    " distilbert-base-uncased-distilled-squad distilbert-base-uncased-finetuned-sst-2-english"
    " distilgpt2 distilroberta-base",
    "FacebookAI": "roberta-base roberta-large roberta-large-mnli xlm-clm-ende-1024"
    " xlm-clm-enfr-1024 xlm-mlm-100-1280 xlm-mlm-17-1280 xlm-mlm-en-2048 xlm-mlm-ende-1024"
    " xlm-mlm-enfr-1024 xlm-mlm-enro-1024 xlm-mlm-tlm-xnli15-1024 xlm-mlm-xnli15-1024"
    " xlm-roberta-base xlm-roberta-large xlm-roberta-large-finetuned-conll02-dutch"
    " xlm-roberta-large-finetuned-conll02-spanish xlm-roberta-large-finetuned-conll03-english"
    " xlm-roberta-large-finetuned-conll03-german",
    "google-bert": "bert-base-cased bert-base-cased-finetuned-mrpc bert-base-chinese"
    " bert-base-german-cased bert-base-german-dbmdz-cased bert-base-german-dbmdz-uncased"
    " bert-base-multilingual-cased bert-base-multilingual-uncased bert-base-uncased"
    " bert-large-cased bert-large-cased-whole-word-masking"
    " bert-large-cased-whole-word-masking-finetuned-squad bert-large-uncased"
    " bert-large-uncased-whole-word-masking bert-large-uncased-whole-word-masking-finetuned-squad",
    "google-t5": "t5-11b t5-3b t5-base t5-large t5-small",
    "openai-community": "gpt2 gpt2-large gpt2-medium gpt2-xl openai-gpt"
    " roberta-base-openai-detector roberta-large-openai-detector",
    "Salesforce": "ctrl",
    "transfo-xl": "transfo-xl-wt103",
    "xlnet": "xlnet-base-cased xlnet-large-cased",
}
_CANONICAL = {
    name: f"{owner}/{name}" for owner, names in _RENAMED.items() for name in names.split()
}


def canonical_id(name: str) -> str:
    """The current name of a backbone on the Hub, whose oldest models moved into organisations.

    >>> canonical_id("bert-base-uncased"), canonical_id("demo/xlmr-tiny")
    ('google-bert/bert-base-uncased', 'demo/xlmr-tiny')
    """
    return _CANONICAL.get(name, name)
