"""The checks of `adaptcompose doctor`: versions, environment, cache, hub, a composition."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Literal

from adaptcompose.diagnostics.diagnostic import Failed
from adaptcompose.hub.opening import open_store
from adaptcompose.plugins import PLUGIN_GROUPS, load_plugins
from adaptcompose.resources import resource_folder
from adaptcompose.version import __version__

State = Literal["fine", "problem", "unreachable", "left out"]
PACKAGES = (
    "torch",
    "transformers",
    "huggingface_hub",
    "tokenizers",
    "safetensors",
    "accelerate",
    "lark",
    "pyyaml",
    "typer",
)
VARIABLES = ("HF_ENDPOINT", "HF_HOME", "HF_HUB_OFFLINE", "OMP_NUM_THREADS", "ADAPTCOMPOSE_DEBUG")
_PROBE = "google-bert/bert-base-uncased"  # a repository that every mirror of the Hub has


@dataclass(frozen=True)
class Finding:
    """One line of the report. The field names are the keys of its JSON form."""

    section: str
    name: str
    told: str
    state: State = "fine"


def run_checks(hub: str, *, offline: bool = False) -> Iterator[Finding]:
    """Run all checks, the fastest ones first."""
    yield from _versions()
    yield from _environment()
    yield from _files()
    yield from _plugins()
    yield _hub(hub, offline=offline)
    yield from _torch()
    yield _run_check("works", "a small composition", _composition)


def _versions() -> Iterator[Finding]:
    yield Finding("versions", "adaptcompose", __version__)
    yield Finding("versions", "python", platform.python_version())
    for name in PACKAGES:
        try:
            yield Finding("versions", name, version_of(name))
        except PackageNotFoundError:
            yield Finding("versions", name, "not installed", "problem")


def _environment() -> Iterator[Finding]:
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    yield Finding("environment", "machine", machine)
    yield Finding("environment", "executable", sys.executable)
    for name in VARIABLES:
        if name in os.environ:
            yield Finding("environment", name, os.environ[name])
    if "HF_TOKEN" in os.environ:
        yield Finding("environment", "HF_TOKEN", "set")


def _files() -> Iterator[Finding]:
    yield _run_check("files", "grammar", lambda: str(resource_folder("grammar")))
    yield _run_check("files", "hub_cards", _cards)
    yield _run_check("files", "cache of the Hugging Face Hub", _cache)


def _cards() -> str:
    folder = resource_folder("hub_cards")
    return f"{folder}, {sum(1 for _ in folder.glob('*/*.md'))} cards"


def _cache() -> str:
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    folder = Path(os.environ.get("HF_HUB_CACHE", home / "hub")).expanduser()
    if not folder.is_dir():
        return f"{folder}, does not exist yet"
    blobs = [path for path in folder.glob("*/blobs/*") if path.is_file()]
    size = sum(path.stat().st_size for path in blobs)
    writable = "" if os.access(folder, os.W_OK) else ", not writable"
    return f"{folder}, {len(blobs)} files, {size / 1e9:.1f} GB{writable}"


def _plugins() -> Iterator[Finding]:
    for group in PLUGIN_GROUPS:
        for plugin in load_plugins(group):
            name = f"{group}: {plugin.name}"
            if plugin.error:
                yield Finding("packages", name, plugin.error, "problem")
            else:
                yield Finding("packages", name, f"from {plugin.package}")


def _hub(hub: str, *, offline: bool) -> Finding:
    if offline:
        return Finding("hub", hub, "skipped (offline)", "left out")
    try:
        store = open_store(hub, Path())
        if "://" in hub or hub == "hf":
            store.resolve(_PROBE)
            return Finding("hub", store.name, "answers")
        if not Path(hub).expanduser().is_dir():
            return Finding("hub", hub, "the folder does not exist", "unreachable")
        return Finding("hub", hub, f"{len(store.list_repositories())} repositories")
    except Failed as failed:
        return Finding("hub", hub, failed.diagnostics[0].message, "unreachable")


def _torch() -> Iterator[Finding]:
    try:
        import torch
    except ImportError as error:
        yield Finding("torch", "import", str(error), "problem")
        return
    cuda = torch.cuda.is_available()
    device = torch.cuda.get_device_name() if cuda else "cpu only"
    yield Finding("torch", "device", device)
    yield Finding("torch", "threads", str(torch.get_num_threads()))


def _run_check(section: str, name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(section, name, check())
    except Exception as error:  # a broken installation can raise anything
        why = str(error).split("\n")[0]
        return Finding(section, name, f"{type(error).__name__}: {why}", "problem")


def _composition() -> str:
    """Run a fusion on a random backbone, compiled and literally, and compare the outputs."""
    import torch
    from transformers import AutoConfig, AutoModel

    from adaptcompose.runtime.compose import compose

    sizes = {"vocab_size": 50, "hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 3}
    config = AutoConfig.for_model("bert", **sizes, intermediate_size=24, max_position_embeddings=16)
    backbone = AutoModel.from_config(config).eval()
    text = "let a = pfeiffer(reduction=4); fuse(a, pfeiffer(reduction=2)) | drop(bottom=1)"
    ids = torch.arange(6)[None]
    outputs = []
    for optimise in (True, False):
        torch.manual_seed(0)
        model = compose(text, backbone, head=None, optimise=optimise)
        for parameter in model.parts.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        with torch.no_grad():
            outputs.append(model(input_ids=ids).last_hidden_state)
    largest = float((outputs[0] - outputs[1]).abs().max())
    if not largest <= 1e-4:
        raise ArithmeticError(f"compiled and literal outputs differ by {largest:.1e}")
    return f"compiled and literal outputs agree to {largest:.0e}"
