#!/usr/bin/env python3
"""Record docs/terminal.svg: a terminal in which a picture is drawn, kernels are checked and one of them is broken.

    cargo build --release
    python docs/terminal.py        # needs npx (Node.js), which fetches svg-term-cli

The commands really run, in a pseudo terminal of this size; typing is imitated, and waits are cut short.
"""
import fcntl
import json
import os
import pty
import shutil
import struct
import subprocess
import sys
import tempfile
import termios
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
COLUMNS, ROWS, LONGEST_WAIT = 80, 24, 0.6
COMMANDS = [
    'ornstein generate "a green square to the left of a yellow star" -o star.png',
    "ornstein validate add layer_norm --device vulkan --quiet",
    "sed -i 's/variance + params.eps/variance - params.eps/' shaders/layer_norm.wgsl",
    "ornstein validate layer_norm --device vulkan --shaders shaders --quiet",
]


def run(command, folder, events, clock):
    """Types a command, runs it, and returns the time when its last output came."""
    say = lambda text: events.append([round(clock, 3), "o", text])
    say("\x1b[1;32m$\x1b[0m ")
    clock += 0.5
    for letter in command:
        clock += 0.03
        say(letter)
    clock += 0.4
    say("\r\n")
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.environ.update(TERM="xterm-256color", PATH=f"{ROOT}/target/release:{os.environ['PATH']}")
        os.environ.pop("NO_COLOR", None)
        os.execvp("bash", ["bash", "-c", command])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    last = time.monotonic()
    while True:
        try:
            text = os.read(terminal, 1 << 16).decode(errors="replace")
        except OSError:
            text = ""
        if not text:
            break
        now = time.monotonic()
        clock, last = clock + min(now - last, LONGEST_WAIT), now
        say(text)
    os.waitpid(child, 0)
    return clock + 1.2


def main():
    events, clock = [], 0.3
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(os.path.join(ROOT, "shaders"), os.path.join(folder, "shaders"))
        for command in COMMANDS:
            clock = run(command, folder, events, clock)
        events.append([round(clock + 3, 3), "o", "\x1b[1;32m$\x1b[0m "])
        cast = os.path.join(folder, "terminal.cast")
        with open(cast, "w") as file:
            for line in [{"version": 2, "width": COLUMNS, "height": ROWS}, *events]:
                file.write(json.dumps(line) + "\n")
        out = os.path.join(ROOT, "docs", "terminal.svg")
        subprocess.run(["npx", "--yes", "svg-term-cli", "--in", cast, "--out", out, "--window", "--no-cursor"], check=True)


if __name__ == "__main__":
    sys.exit(main())
