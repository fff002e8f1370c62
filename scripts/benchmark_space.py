"""Time the Space: its start, one recognition, a query over 1,000 crops, and many visitors at once.

    pip install -e '.[space]'
    python scripts/benchmark_space.py

The memory of the server is read between the rounds of visitors: it must not grow with them.
"""

import argparse
import contextlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gradio_client import Client, handle_file

ROOT = Path(__file__).resolve().parents[1]
SPACE = ROOT / "space"
SAMPLES = sorted(map(str, (ROOT / "assets/samples").glob("*.jpg")))
PATIENCE = 300  # seconds


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--visitors", type=int, default=20, help="clients at the same time")
    parser.add_argument("--requests", type=int, default=10, help="of each client in a round")
    parser.add_argument("--rounds", type=int, default=4, help="between which memory is read")
    parser.add_argument("--crops", type=int, default=1000, help="in the gallery of the query")
    return parser.parse_args()


@contextlib.contextmanager
def served():
    """The app in a process of its own: (process, address, seconds until it answers)."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        variables = {"GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": folder}
        process = subprocess.Popen(
            [sys.executable, str(SPACE / "app.py")],
            env=os.environ | variables,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            yield process, f"http://127.0.0.1:{port}", wait(process, port) - begun
        finally:
            process.terminate()
            process.wait()


def wait(process: subprocess.Popen, port: int) -> float:
    """The time at which the port answers."""
    last = time.perf_counter() + PATIENCE
    while process.poll() is None and time.perf_counter() < last:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return time.perf_counter()
        time.sleep(0.1)
    raise SystemExit("benchmark_space.py: error: the Space did not start")


def memory(process: subprocess.Popen) -> float:
    """Megabytes that a process holds (Linux)."""
    pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def seconds_of(call: Callable, times: int) -> tuple[float, float]:
    """(median, largest) of several calls, after one that is not counted."""
    call()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken), max(taken)


def connect(address: str) -> Client:
    """A client that waits when the machine is busy with other things, instead of giving up."""
    return Client(address, verbose=False, httpx_kwargs={"timeout": PATIENCE})


def visit(address: str, visitor: int, requests: int, expected: list[dict]) -> int:
    """One client's round; returns how many answers were not those of its own crops."""
    client, wrong = connect(address), 0
    for turn in range(requests):
        number = (visitor + turn) % len(SAMPLES)
        answer = client.predict(handle_file(SAMPLES[number]), None, api_name="/recognise")
        wrong += not same(answer, expected[number])
    return wrong


def same(answer: dict, expected: dict) -> bool:
    """Equal decisions, and probabilities but for the order of additions."""
    return all(
        answer[name]["value"] == one["value"]
        and abs(answer[name]["probability"] - one["probability"]) < 1e-4
        for name, one in expected.items()
    )


def time_query(crops: int) -> tuple[float, tuple[float, float]]:
    """(seconds to embed a gallery, seconds of a query over it with its page)."""
    sys.path.insert(0, str(SPACE))
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import cards
    import find_tab
    import uploads
    from engine import Engine

    engine = Engine(ROOT)
    images = list(uploads.read_crops([str(SPACE / "drawn_crops.zip")], []))
    begun = time.perf_counter()
    gallery = engine.read(images[i % len(images)] for i in range(crops))
    adapter = next(iter(engine.adapters))
    engine.embed_crops(gallery, adapter)
    embedding, kind = time.perf_counter() - begun, engine.kinds(adapter)[0]

    def query() -> None:
        wanted, _ = find_tab.read_query(engine.schema, find_tab.WORDS, find_tab.EXAMPLE, [])
        hits = find_tab.search(engine, gallery, wanted, adapter, kind, 10)
        cards.results(hits, gallery.names, gallery.thumbnails)

    return embedding, seconds_of(query, 30)


def main() -> None:
    """Print one line for each figure."""
    arguments = parse_arguments()
    with served() as (process, address, start):
        print(f"start: {start:.1f} s until the page answers", flush=True)
        client = connect(address)

        def recognise(path: str) -> dict:
            return client.predict(handle_file(path), None, api_name="/recognise")

        expected = list(map(recognise, SAMPLES))
        median, longest = seconds_of(lambda: recognise(SAMPLES[0]), 30)
        print(f"recognition of one crop: median {median:.3f} s, longest {longest:.3f} s")
        for number in range(1, arguments.rounds + 1):
            begun, visitors = time.perf_counter(), range(arguments.visitors)
            with ThreadPoolExecutor(arguments.visitors) as pool:
                work = [
                    pool.submit(visit, address, v, arguments.requests, expected) for v in visitors
                ]
                wrong = sum(one.result() for one in work)
            taken, count = time.perf_counter() - begun, arguments.visitors * arguments.requests
            print(
                f"round {number}: {count} requests of {arguments.visitors} visitors in "
                f"{taken:.1f} s, {wrong} wrong answers, memory {memory(process):.0f} MB",
                flush=True,
            )
    embedding, (median, longest) = time_query(arguments.crops)
    print(f"gallery: {arguments.crops} crops embedded in {embedding:.1f} s")
    print(f"query over them: median {median:.3f} s, longest {longest:.3f} s")


if __name__ == "__main__":
    main()
