"""Real shells at the other end of a pseudo-terminal, with the completion that users install."""

from __future__ import annotations

import os
import pty
import re
import select
import sys
import time
from pathlib import Path

from tests.workshop import PATIENCE

SETUP = {
    "bash": "bind 'set bell-style none'; PS1='{prompt}'; . {script}",
    "zsh": "PS1='{prompt}'; unsetopt beep; autoload -Uz compinit; compinit -u -D; . {script}",
}
START = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}
READY = "is ready"
PROMPT = "^> "
"""A shell that shows it reads keys itself; before, the terminal would show them."""


class Shell:
    """Keys go in, and what stands on the screen comes out."""

    def __init__(self, name: str, folder: Path) -> None:
        command = folder / "bin" / "adaptcompose"
        command.parent.mkdir()
        command.write_text(f'#!/bin/sh\nexec {sys.executable} -m adaptcompose "$@"\n')
        command.chmod(0o755)
        path = f"{command.parent}:{os.environ['PATH']}"
        root = Path(__file__).parents[1]
        environment = {"PATH": path, "HOME": str(folder), "TERM": "dumb", "PYTHONPATH": str(root)}
        self.process, self.screen = pty.fork()
        if self.process == 0:
            os.chdir(folder)
            os.execvpe(START[name][0], START[name], environment)
        script = folder / "completion"
        self.type(f"adaptcompose --show-completion {name} > {script}\n")
        self.type(
            SETUP[name].format(script=script, prompt=PROMPT) + f"; echo {READY[:2]}''{READY[2:]}\n"
        )
        self.until(PROMPT, after=f"{READY}\r\n")

    def type(self, keys: str) -> None:
        os.write(self.screen, keys.encode())

    def until(self, wanted: str, *, after: str = "") -> str:
        """What is on the screen when `wanted` has come behind `after`, or nothing more comes."""
        text, end = "", time.monotonic() + PATIENCE
        pattern = re.compile(f"{re.escape(after)}.*{re.escape(wanted)}", re.DOTALL)
        while not pattern.search(text) and time.monotonic() < end:
            if select.select([self.screen], [], [], 0.1)[0]:
                text += os.read(self.screen, 65536).decode(errors="replace")
        return text

    def completed(self, line: str) -> str:
        """The line after the tab key, to its last character."""
        self.type(f"{line}\t")
        # what is typed behind the tab key is shown only when that is answered
        self.type("@@\x01\x0b")
        text = self.until("@@")
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]|\x07|\r", "", text)
        self.type("echo ne''xt\n")
        self.until(PROMPT, after="next\r\n")
        return shown[shown.rindex("adaptcompose ") : shown.rindex("@@")]

    def close(self) -> None:
        os.close(self.screen)
        os.waitpid(self.process, 0)
