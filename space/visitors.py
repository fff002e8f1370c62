"""What is kept of a visitor, and for how long: files and crops of a session, until it ends."""

import os
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import gradio as gr
import uploads
from engine import Crops

GRACE = 30  # seconds; Gradio stores equal files of two visitors once, and the other's may be on
# its way: a file is deleted only when nobody holds it and none has sent it since.
# With crops in memory; the session that has been quiet for longest gives way.
MOST_SESSIONS = 200
MOST_BYTES = 2**30  # two thousand crops are 25 million


class Visitors:
    """The uploaded files of each session, and the crops that were made of them.

    Args:
        folder: of all uploads; nothing outside it is read or deleted.
        grace: seconds that a file outlives the last session that held it.
    """

    def __init__(self, folder: str | os.PathLike, grace: float = GRACE):
        self.folder = Path(folder).resolve()
        self.grace = grace
        self.held: dict[str, set[str]] = {}  # session -> files
        self.crops: dict[str, dict[str, Crops]] = {}  # session -> name -> crops
        self.left: set[str] = set()  # files that nobody holds any more
        self.lock = threading.Lock()

    def remember(self, request: gr.Request, paths: Iterable[str]) -> None:
        """These files belong to this session.

        Raises:
            gr.Error: for a file that is no upload, whoever asks for it.
        """
        paths = list(paths)
        if not all(path and Path(path).resolve().is_relative_to(self.folder) for path in paths):
            raise gr.Error("Only uploaded files are read.", print_exception=False)
        with self.lock:
            self.held.setdefault(request.session_hash, set()).update(paths)

    @contextmanager
    def holding(self, request: gr.Request, paths: Iterable[str]) -> Iterator[None]:
        """Inside, these files belong to this session; then it needs its files no more."""
        self.remember(request, paths)
        try:
            yield
        finally:
            self.release(request)

    def keep(self, request: gr.Request, name: str, crops: Crops | None) -> None:
        """Keep crops for this session under a name."""
        with self.lock:
            kept = self.crops.pop(request.session_hash, {})
            self.crops[request.session_hash] = kept | {name: crops}  # the last in order
            while len(self.crops) > 1 and (
                len(self.crops) > MOST_SESSIONS or self._size() > MOST_BYTES
            ):
                del self.crops[next(iter(self.crops))]

    def _size(self) -> int:
        """Bytes of all crops that are kept."""
        return sum(crops.size for named in self.crops.values() for crops in named.values() if crops)

    def kept(self, request: gr.Request, name: str) -> Crops | None:
        """What this session keeps under a name."""
        return self.crops.get(request.session_hash, {}).get(name)

    def release(self, request: gr.Request) -> None:
        """This session needs its files no more; they are deleted in a while."""
        with self.lock:
            self.left |= self.held.pop(request.session_hash, set())
        timer = threading.Timer(self.grace + 1, self.sweep)
        timer.daemon = True
        timer.start()

    def forget(self, request: gr.Request) -> None:
        """This session has ended."""
        with self.lock:
            self.crops.pop(request.session_hash, None)
        self.release(request)

    def sweep(self) -> None:
        """Delete what nobody holds and nobody has sent of late."""
        with self.lock:
            held = set().union(*self.held.values())
            self.left = {path for path in self.left - held if Path(path).exists()}
            before = time.time() - self.grace
            old = {path for path in self.left if Path(path).stat().st_mtime <= before}
            uploads.discard(old, self.folder)
            self.left -= old


def unopened(component: gr.Image | gr.UploadButton):
    """Let a component hand on the paths of uploads as they are.

    Gradio would open images, where a fault has no message, and leave an empty file for each file.
    """

    def preprocess(payload):
        if payload is None:
            return None
        files = getattr(payload, "root", payload)
        return [file.path for file in files] if isinstance(files, list) else files.path

    component.preprocess = preprocess
    return component


def warn(problems: list[str]) -> None:
    """One message for all that was left out of a visitor's files."""
    if problems:
        rest = f" And {len(problems) - 3:,} more." if len(problems) > 3 else ""
        gr.Warning(f"Not everything was read. {' '.join(problems[:3])}{rest}")


@contextmanager
def refuse() -> Iterator[None]:
    """What a visitor's file or query has wrong becomes a message on the page."""
    try:
        yield
    except ValueError as error:
        raise gr.Error(str(error), duration=8, print_exception=False) from None
