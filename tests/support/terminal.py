"""A terminal of 80 columns in this process: what commands write to it, and the screen that a person then sees."""

import fcntl
import os
import pty
import re
import struct
import sys
import termios
import threading
from contextlib import contextmanager

COLUMNS = 80
PIECE = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|\x1b[=>]|[\r\n]|([^\x1b\r\n])")


@contextmanager
def terminal():
    """Standard output and error, as files and as Python's streams, become a terminal; gives a function of its text."""
    main, end = pty.openpty()
    fcntl.ioctl(end, termios.TIOCSWINSZ, struct.pack("HHHH", 24, COLUMNS, 0, 0))
    pieces = []

    def read():
        while True:
            try:
                piece = os.read(main, 1 << 16)
            except OSError:  # the other end is closed
                return
            if not piece:
                return
            pieces.append(piece)

    reader = threading.Thread(target=read)
    reader.start()
    streams, copies = (sys.stdout, sys.stderr), (os.dup(1), os.dup(2))
    ours = [os.fdopen(os.dup(end), "w", buffering=1, encoding="utf-8") for _ in streams]
    environment = {name: os.environ.pop(name, None) for name in ("COLUMNS", "NO_COLOR", "TERM")}
    os.environ["TERM"] = "xterm"
    for number in (1, 2):
        os.dup2(end, number)
    sys.stdout, sys.stderr = ours
    try:
        yield lambda: b"".join(pieces).decode("utf-8", "replace")
    finally:
        sys.stdout, sys.stderr = streams
        for copy, number in zip(copies, (1, 2), strict=True):
            os.dup2(copy, number)
            os.close(copy)
        for stream in ours:
            stream.close()
        os.close(end)
        reader.join()
        os.close(main)
        del os.environ["TERM"]
        os.environ.update({name: value for name, value in environment.items() if value is not None})


def screen(text):
    """(lines on the screen in the end, the set of those that go on in the next because they were too long)."""
    lines, row, column, wrapped = [[]], 0, 0, set()

    def go(to):
        nonlocal row
        row = max(0, to)
        while len(lines) <= row:
            lines.append([])

    for piece in PIECE.finditer(text):
        count, kind, character = piece.groups()
        n = int(count) if count and count.isdecimal() else 1
        if kind == "A":
            go(row - n)
        elif kind == "K":
            lines[row] = [] if count == "2" else lines[row][:column]
        elif kind is None and character is None and piece[0] == "\r":
            column = 0
        elif kind is None and character is None and piece[0] == "\n":
            go(row + 1)
        elif character is not None:
            if column == COLUMNS:
                wrapped.add(row)
                go(row + 1)
                column = 0
            lines[row] += [" "] * (column - len(lines[row]))
            lines[row][column : column + 1] = character
            column += 1
    return ["".join(line).rstrip() for line in lines], wrapped
