"""These are scripts, most of them for the peer's environment; pytest leaves them alone."""

from __future__ import annotations

collect_ignore = [
    "backbones.py",
    "cases.py",
    "check_written.py",
    "generate.py",
    "old.py",
    "peer.py",
    "write.py",
]
