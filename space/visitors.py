"""What is kept of a visitor, and for how long: the files of a session, until it ends."""

import os
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import uploads


class Visitors:
    """The uploaded files of each session.

    Args:
        folder: of all uploads; nothing outside it is ever deleted.
    """

    def __init__(self, folder: str | os.PathLike):
        self.folder = Path(folder)
        self.files: dict[str, set[str]] = defaultdict(set)
        self.lock = threading.Lock()

    def remember(self, request: gr.Request, paths: Iterable[str]) -> None:
        """These files belong to this session."""
        with self.lock:
            self.files[request.session_hash].update(paths)

    def forget(self, request: gr.Request) -> None:
        """Delete the files of a session that has ended."""
        with self.lock:
            paths = self.files.pop(request.session_hash, set())
        uploads.discard(paths, self.folder)

    @staticmethod
    def name_of(path: str) -> str:
        """The file's own name."""
        return Path(path).name


@contextmanager
def refuse() -> Iterator[None]:
    """What a visitor's file or query has wrong becomes a message on the page."""
    try:
        yield
    except ValueError as error:
        raise gr.Error(str(error), duration=8, print_exception=False) from None
