"""Signals that end a run, as its loop is told of them."""

import signal
import threading

from rich.console import Console


class Interrupts:
    """Ctrl-C and SIGTERM, noted for the loop, which saves and stops; a second Ctrl-C
    stops at once.
    """

    def __init__(self, console: Console):
        self.console, self.noted, self.former = console, False, {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for sign in (signal.SIGINT, signal.SIGTERM):
                self.former[sign] = signal.signal(sign, self._note)
        return self

    def _note(self, sign, frame):
        if self.noted:
            raise KeyboardInterrupt
        self.noted = True
        self.console.print("stopping: saving first (Ctrl-C again: at once)")

    def __exit__(self, *error):
        for sign, handler in self.former.items():
            signal.signal(sign, handler)
