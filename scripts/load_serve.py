"""Load test of kzoo serve: 1,000 requests, 32 at a time; then again with a SIGTERM in the middle.

    python scripts/load_serve.py saved_models/lenet5

Prints the number of answers, seconds, requests/s, p50 and p99; for the second round, the numbers of requests that were
accepted and answered, which must be equal. The images are kzoo's own drawings, of 200 to 340 pixels.
"""

import argparse
import base64
import http.client
import io
import json
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np


def start_server(folder):
    """Start `kzoo serve` on a free port: (process, port)."""
    command = [sys.executable, "-c", "from kzoo.cli import entry; entry()", "serve", folder, "--port", "0"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    for line in server.stderr:
        found = re.search(r"http://127.0.0.1:(\d+)", line)
        if found:
            threading.Thread(target=server.stderr.read, daemon=True).start()
            return server, int(found[1])
    raise SystemExit(f"The server did not start: exit code {server.wait()}.")


def request_bodies():
    """Bodies of predict requests with JPEG images of several sizes."""
    from kzoo.data.drawn import painting

    found = []
    for seed in range(8):
        buffer = io.BytesIO()
        painting("strokes", side=200 + 20 * seed, seed=seed).save(buffer, "JPEG")
        found.append(json.dumps({"instances": [{"b64": base64.b64encode(buffer.getvalue()).decode()}]}))
    return found


def send_requests(port, name, requests, at_once, after=None):
    """Send requests from several threads.

    Args:
        port: of the server.
        name: of the model.
        requests: their number.
        at_once: the number of threads.
        after: a function that is called once, when a quarter of the requests has been answered.

    Returns:
        ([(seconds, status or name of an exception)], seconds in all). Refused connections are left out.
    """
    payloads, answers, lock, numbers = request_bodies(), [], threading.Lock(), iter(range(requests))

    def client():
        while (i := next_number()) is not None:
            began = time.perf_counter()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            try:
                connection.connect()
            except OSError:
                return
            try:
                connection.request("POST", f"/v1/models/{name}:predict", payloads[i % len(payloads)])
                response = connection.getresponse()
                status = response.status if json.loads(response.read()).get("predictions") else -response.status
            except (OSError, http.client.HTTPException, ValueError) as e:
                status = type(e).__name__
            with lock:
                answers.append((time.perf_counter() - began, status))
                if after and len(answers) == requests // 4:
                    after()

    def next_number():
        with lock:
            return next(numbers, None)

    threads = [threading.Thread(target=client) for _ in range(at_once)]
    began = time.perf_counter()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return answers, time.perf_counter() - began


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="of an export")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--at-once", type=int, default=32, help="requests that are sent in parallel")
    options = parser.parse_args()
    name = json.loads((Path(options.folder) / "card.json").read_text())["name"]

    server, port = start_server(options.folder)
    answers, seconds = send_requests(port, name, options.requests, options.at_once)
    ms = 1000 * np.array([s for s, _ in answers])
    good = sum(status == 200 for _, status in answers)
    p50, p99 = np.percentile(ms, (50, 99))
    print(
        f"{good:,} of {options.requests:,} answered, {options.at_once} at a time: {seconds:.1f} s, "
        f"{good / seconds:,.0f} requests/s, p50 {p50:.0f} ms, p99 {p99:.0f} ms"
    )

    def stop():
        return server.send_signal(signal.SIGTERM)

    answers, _ = send_requests(port, name, options.requests, options.at_once, after=stop)
    lost = [status for _, status in answers if status != 200]
    code = server.wait(60)
    print(
        f"SIGTERM in the middle: {len(answers):,} requests accepted, {len(answers) - len(lost):,} answered, lost: "
        f"{lost or 'none'}; exit code {code}"
    )
    raise SystemExit(1 if lost or good < options.requests or code else 0)


if __name__ == "__main__":
    main()
