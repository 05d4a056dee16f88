"""`make demo`: text, backbone, adapters and cards of the demo hub, from nothing.

Everything over the backbone is trained by `adaptcompose run` on the specs beside this file. What is
committed carries the hash of the recipe in its message, and a test compares it.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from adaptcompose.hub.folder import FolderStore
from adaptcompose.hub.store import walk_files

HERE = Path(__file__).parent
HUB, BUILD, SPECS = HERE / "hub", HERE / "build", HERE / "specs"
BACKBONE = "demo/xlmr-tiny"
LANGUAGES = ("lang-en", "lang-sw")
ENTITIES = ("ner", "ner-alone")
SENTENCES = ("topic", "place", "person", "organisation", "names")
SCRIPTS = ("data.py", "pretrain.py")
SEEDS = (0, 1, 2)  # the entity adapters are trained with each, for baselines with a spread

MADE_BEFORE = {
    "recipe sha256:f94a41e3e40268a31690329caa21f28b66d2b606c0cbdce3c3d2b5b65a67b4ed": (
        "recipe sha256:92f13ec309968171880c97f45d82838ea00f883fb03206ec7fc008244b5b4154"
    ),
}
"""Messages of a hub that this recipe made while its hash still covered this script, too."""


def recipe() -> str:
    """The hash of everything that decides what the demo hub holds; this script only runs it."""
    scripts = (HERE / name for name in SCRIPTS)
    files = [*scripts, *(HERE / "text").rglob("*.*"), *SPECS.glob("*.yaml")]
    digest = hashlib.sha256()
    for path in sorted(files, key=lambda path: path.relative_to(HERE).as_posix()):
        if "__pycache__" not in path.parts:
            digest.update(path.relative_to(HERE).as_posix().encode() + b"\0" + path.read_bytes())
    return f"recipe sha256:{digest.hexdigest()}"


def script(name: str) -> None:
    subprocess.run([sys.executable, str(HERE / name)], check=True)


def publish_backbone() -> None:
    folder = BUILD / "xlmr-tiny"
    files: dict[str, Path | bytes] = {path: folder / path for path in walk_files(folder)}
    FolderStore(HUB).commit(BACKBONE, files, message=recipe())


def train(name: str, seed: int = 0) -> None:
    """Run a spec through the tool; another seed than 0 goes to a repository of its own."""
    from adaptcompose.cli.terminal import Terminal, silence_transformers
    from adaptcompose.experiment.prepare.preparer import prepare_runs
    from adaptcompose.experiment.run.run import Run
    from adaptcompose.experiment.spec.spec import read_specs

    path = SPECS / f"{name}.yaml"
    spec = read_specs(path)[0]
    assert spec.train is not None and spec.publish is not None
    suffix = f"-{seed}" if seed else ""
    spec = replace(
        spec,
        name=spec.name + suffix,
        train=replace(spec.train, seeds=(seed,)),
        publish=replace(spec.publish, repo=spec.publish.repo + suffix, message=recipe()),
    )
    (prepared,) = prepare_runs((spec,), path.with_stem(spec.name))
    silence_transformers()
    Run(prepared, prepared.make_plan(), BUILD / "runs" / spec.name, Terminal(), fresh=True).run()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--from-backbone", action="store_true", help="keep the pretrained backbone")
    arguments = parser.parse_args()
    script("data.py")
    if not arguments.from_backbone:
        script("pretrain.py")
    shutil.rmtree(HUB / "demo", ignore_errors=True)
    publish_backbone()
    for name in LANGUAGES:
        train(name)
    for name in ENTITIES:
        for seed in SEEDS:
            train(name, seed)
    for name in SENTENCES:
        train(name)


if __name__ == "__main__":
    main()
