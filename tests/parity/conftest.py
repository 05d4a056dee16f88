"""These are scripts, most of them for the peer's environment; pytest leaves them alone."""

from __future__ import annotations

collect_ignore = [
    "backbones.py",
    "cases.py",
    "check_gaps.py",
    "check_gaps_peft.py",
    "check_peft.py",
    "check_written.py",
    "decoder_cases.py",
    "generate.py",
    "generate_peft.py",
    "old.py",
    "peer.py",
    "peft_cases.py",
    "write.py",
    "write_peft.py",
]
