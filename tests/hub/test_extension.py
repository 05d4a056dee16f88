"""`hf compose …`, through the real command `hf`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub.cli import extensions

from adaptcompose.cli import main as cli
from adaptcompose.version import __version__

HF = Path(sys.executable).parent / "hf"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def hf(*arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    quiet = {"HOME": str(home), "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run(
        [HF, *arguments], env=os.environ | quiet, capture_output=True, text=True, check=False
    )


@pytest.mark.skipif(not HF.is_file(), reason="the command `hf` is not installed")
def test_hf_compose(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["hf-extension", "install"]) == 0
    assert "hf compose" in capsys.readouterr().out
    assert hf("compose", "--version", home=home).stdout.strip() == __version__
    refused = hf("compose", "check", "stack(", home=home)
    assert (refused.returncode, "AC004" in refused.stdout) == (1, True)
    assert "compose" in hf("--help", home=home).stdout
    assert cli.main(["hf-extension", "install"]) == 0, "again is no harm"
    assert cli.main(["hf-extension", "remove"]) == 0
    assert not (home / ".local/share/hf/extensions/hf-compose").exists()
    capsys.readouterr()
    assert cli.main(["hf-extension", "remove"]) == 0
    assert capsys.readouterr().out == "`hf compose` was not registered\n"


def test_another_extension_of_that_name_stays(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["hf-extension", "install"])
    manifest = home / ".local/share/hf/extensions/hf-compose/manifest.json"
    theirs = manifest.read_text().replace("adaptcompose.local", "somebody")
    manifest.write_text(theirs)
    capsys.readouterr()
    assert cli.main(["hf-extension", "install"]) == 1
    assert "AC434" in capsys.readouterr().err
    cli.main(["hf-extension", "remove"])
    assert manifest.read_text() == theirs


@pytest.mark.parametrize("gone", ["ExtensionManifest", "EXTENSIONS_ROOT"])
def test_a_client_that_works_otherwise_is_no_crash(
    gone: str, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delattr(extensions, gone)
    assert cli.main(["hf-extension", "install"]) == 1
    err = capsys.readouterr().err
    assert "error[AC434]: cannot register `hf compose`" in err
    assert "use the command `adaptcompose` instead" in err
    assert list(home.rglob("manifest.json")) == []
