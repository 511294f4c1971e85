"""An export over HTTP beside its bare signature: what `kzoo serve` adds at one client, and keeps at 32.

"signature" calls serving_default of the SavedModel with the bytes of JPEG files: one at a time, and in batches of 8 to
64, of which the fastest counts. "server" is `kzoo serve` in a process of its own, asked for the same files by as many
clients as images are computed at once: with connections that are kept, or a new one for each request. All clients are
sockets in one thread that sends bytes prepared before, and so takes little from the server; "client" is its share of
the processor time. The JPEGs are kzoo's own drawings, of 300 to 500 pixels and 30 to 76 KB.

    kzoo export mobilenet_v2 --out saved_models/mobilenet_v2
    python scripts/benchmark.py serve --model saved_models/resnet20 saved_models/mobilenet_v2
"""

import base64
import io
import json
import re
import selectors
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from statistics import median

from bench.common import timed

HELP = "images/s and latency of kzoo serve, beside the bare signature of the export"
UNIT, BETTER, BASE = "images/s", "more", "signature"

CASES = {"1 client": (1, True), "1 client, new connections": (1, False), "32 clients": (32, True)}
BATCHES = (8, 16, 32, 64)


def arguments(parser):
    parser.add_argument("--model", nargs="+", default=["saved_models/resnet20"], metavar="EXPORT")
    parser.add_argument("--seconds", type=float, default=3.0, help="duration of each measurement")


def contenders(options):
    return ["signature", "server"]


def measure(name, options):
    folder = Path(options.model[0])
    return (bare if name == "signature" else served)(folder, photos(), options.seconds)


def photos():
    """JPEG files of several sizes, as bytes."""
    from kzoo.data.drawn import painting

    found = []
    for i, side in enumerate(range(300, 501, 25)):
        buffer = io.BytesIO()
        painting(("strokes", "glass")[i % 2], side=side, seed=i).save(buffer, "JPEG")
        found.append(buffer.getvalue())
    return found


def bare(folder, files, seconds):
    """The signature: {case: {"value", "ms" of a call, "cpu_ms" of an image, "batch"}}."""
    from kzoo.exporting.reader import Export

    export, speeds = Export(folder), {}
    for batch in (1, *BATCHES):
        turns = iter(range(10**9))

        def call():
            at = next(turns) * batch  # noqa: B023
            export.run([files[(at + i) % len(files)] for i in range(batch)])  # noqa: B023

        call()
        began = time.process_time()
        times = timed(call, seconds)
        cpu = (time.process_time() - began) / (len(times) + 2) / batch
        speeds[batch] = batch / median(times), median(times), cpu
    best = max(BATCHES, key=speeds.get)

    def facts(batch):
        speed, latency, cpu = speeds[batch]
        return {"value": speed, "ms": round(1e3 * latency, 2), "cpu_ms": round(1e3 * cpu, 2), "batch": batch}

    return {case: facts(1 if clients == 1 else best) for case, (clients, _) in CASES.items()}


def served(folder, files, seconds):
    """The server: {case: {"value", "ms" and "p99_ms" of a request, "cpu_ms" of an image, "client"}}."""
    command = [sys.executable, "-c", "from kzoo.cli import entry; entry()", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
        try:
            for line in server.stderr:
                if found := re.search(r"http://127.0.0.1:(\d+)", line):
                    break
            else:
                raise SystemExit(f"The server did not start: exit code {server.wait()}.")
            threading.Thread(target=server.stderr.read, daemon=True).start()
            name = json.loads((folder / "card.json").read_text())["name"]
            requests = [request(name, file) for file in files]
            return {case: load(int(found[1]), server.pid, requests, *how, seconds) for case, how in CASES.items()}
        finally:
            server.terminate()


def request(name, file):
    """The bytes of a predict request."""
    body = json.dumps({"instances": [{"b64": base64.b64encode(file).decode()}]}).encode()
    head = f"POST /v1/models/{name}:predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(body) + body


def load(port, pid, requests, clients, keep, seconds):
    """Send requests from so many clients, each the next one once it has its answer; a tenth of the time is warm-up."""
    waiting, began_at, latencies, turns = selectors.DefaultSelector(), {}, [], iter(range(10**9))

    def connect():
        client = socket.create_connection(("127.0.0.1", port), timeout=60)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return client

    def ask(client):
        began_at[client] = time.perf_counter()
        client = client if keep else connect()
        client.sendall(requests[next(turns) % len(requests)])
        if not keep:
            began_at[client] = began_at.pop(None)
        waiting.register(client, selectors.EVENT_READ)

    for _ in range(clients):
        ask(connect() if keep else None)
    start = own = theirs = None
    opened = time.perf_counter()
    while start is None or time.perf_counter() - start < seconds:
        if start is None and time.perf_counter() - opened > seconds / 10:
            start, own, theirs, latencies = time.perf_counter(), time.process_time(), processor_seconds(pid), []
        for key, _ in waiting.select(60):
            client = key.fileobj
            answer(client)
            waiting.unregister(client)
            latencies.append(time.perf_counter() - began_at.pop(client))
            if not keep:
                client.close()
            ask(client if keep else None)
    took, own, theirs = time.perf_counter() - start, time.process_time() - own, processor_seconds(pid) - theirs
    n = len(latencies)
    for client in [key.fileobj for key in waiting.get_map().values()]:
        client.close()
    return {
        "value": 1 / median(latencies) if clients == 1 else n / took,
        "ms": round(1e3 * median(latencies), 2),
        "p99_ms": round(1e3 * sorted(latencies)[n * 99 // 100], 2),
        "cpu_ms": round(1e3 * theirs / n, 2),
        "client": f"{own / (own + theirs):.0%}",
    }


def answer(client):
    """Read one answer, which must be 200 and have predictions."""
    found = client.recv(1 << 18)
    while b"\r\n\r\n" not in found:
        found += client.recv(1 << 18)
    head, _, body = found.partition(b"\r\n\r\n")
    length = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])
    while len(body) < length:
        body += client.recv(1 << 18)
    assert b" 200 " in head[:20] and body.startswith(b'{"predictions"'), found[:300]


def processor_seconds(pid):
    """User and system seconds of another process, by Linux."""
    import os

    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
