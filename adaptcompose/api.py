"""The public surface, `ac.…`: everything that a Python program needs.

`parse` and `check` need no torch; the functions that run a model import it when you call them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptcompose.diagnostics.diagnostic import Diagnostic, Failed, Source
from adaptcompose.syntax.nodes import Tree
from adaptcompose.syntax.parser import parse_tree

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from adaptcompose.composition.heads import HeadChoice
    from adaptcompose.experiment.share.push import PushResult
    from adaptcompose.runtime.model import ComposedModel

__all__ = ["Composition", "Diagnostic", "Failed", "check", "compose", "load", "parse", "push"]


@dataclass(frozen=True)
class Composition:
    """A parsed expression; `str` is the inverse of `parse`."""

    tree: Tree

    def __str__(self) -> str:
        return str(self.tree)


def parse(text: str) -> Composition:
    """Parse an expression without looking up its names. Raises `Failed` if its syntax is wrong.

    >>> parse("stack(a, b)|swap(x = c)") == parse("stack(a, b) | swap(x=c)")
    True
    """
    return Composition(parse_tree(text))


def check(
    text: str,
    backbone: str | None = None,
    root: str | Path | None = None,
    hub: str | None = None,
) -> list[Diagnostic]:
    """The diagnostics about an expression, sorted by position; empty if there are none.

    Add `backbone` (a folder, or a repository whose config.json can be read) to check variants and
    layers as well. Add `root`, the folder that `./` starts from, or `hub` to check the folders that
    references name, including those of a hub that is a folder. Nothing is downloaded from others.
    """
    from adaptcompose.resolution.expression_check import check_expression, check_files, context

    base = context(backbone, Path(root or "."), hub or "hf")
    checked = check_expression(Source(text), base)
    if root is None and hub is None:
        return list(checked.diagnostics)
    return check_files(checked, base, Path(root or "."), hub or "hf")


def compose(
    expr: str | Source,
    backbone: str | Path | PreTrainedModel,
    *,
    root: str | Path = ".",
    head: HeadChoice = "auto",
    optimise: bool = True,
    hub: str | None = None,
) -> ComposedModel:
    """Build a running model of `expr` on `backbone`, in eval mode. The backbone stays unchanged.

    `backbone` is a repository, a folder or a loaded model. `root` is the folder that `./` starts
    from. `head` is "auto" (the head of the last part in the outermost stack that has one),
    "backbone" (the checkpoint's own), the name of a part, {"task": …, "labels": […]} for a new
    head, or None. `optimise=False` runs the literal program, without any pass of the compiler.
    `hub` is "hf", an endpoint, or a folder. Raises `Failed`.
    """
    from adaptcompose.runtime import compose as pipeline

    return pipeline.compose(expr, backbone, root=root, head=head, optimise=optimise, hub=hub)


def load(ref_or_dir: str | Path, backbone: Any = None, hub: str | None = None) -> ComposedModel:
    """Load a published or saved composition; its outputs are bit-equal to those before saving.

    `ref_or_dir` is `user/repo@revision` or a folder. `backbone` replaces the recorded one. `hub` is
    "hf", an endpoint or a folder; without it, a saved composition uses the hub it was saved with.
    Raises `Failed`.
    """
    from adaptcompose.runtime.saving import loader

    return loader.load(ref_or_dir, backbone, hub)


def push(  # noqa: PLR0913 - a public function: its arguments have names
    model: ComposedModel | str | Path,
    repo: str,
    *,
    hub: str | None = None,
    revision: str | None = None,
    private: bool = True,
    pr: bool = False,
    license: str | None = None,
    backbone: Any = None,
) -> PushResult:
    """Publish a model, a run or a saved folder in one commit, or as a pull request.

    `revision` names a branch. `private` applies to a repository that does not exist yet. A public
    repository needs a `license`, unless the run's spec has one. Raises `Failed`.
    """
    from adaptcompose.experiment.share.push import PushTarget, open_push
    from adaptcompose.hub.opening import open_store

    target = PushTarget(repo, revision or "main", pr, private)
    store = open_store(hub or "hf", Path())
    with open_push(model, target, store, license=license, backbone=backbone) as ready_push:
        return ready_push.send()
