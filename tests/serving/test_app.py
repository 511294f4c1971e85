"""The server and its faults: bad bodies, slow clients, full queues, bombs, SIGTERM; the page in a browser."""

import base64
import gzip
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from support.serving import LIMITS, b64, declaring, png

from kzoo.errors import ExportError

pytest.importorskip("uvicorn", reason="needs the serve extra: pip install 'kzoo[serve]'")
pytest.importorskip("starlette", reason="needs the serve extra: pip install 'kzoo[serve]'")
from kzoo.serving import app
from kzoo.tasks import find

ROOT = Path(__file__).resolve().parents[2]
EXPORT = ROOT / "saved_models" / "mnist_cnn"


class Model:
    """Instead of an export: answers with the number of bytes; it waits while `go` is cleared."""

    def __init__(self):
        self.go, self.entered, self.sizes, self.fail = threading.Event(), threading.Event(), [], False
        self.go.set()

    def __call__(self, encoded):
        self.entered.set()
        self.go.wait(20)
        self.sizes.append(len(encoded))
        if self.fail:
            raise RuntimeError("no more memory")
        bad = [not e.startswith(b"\x89PNG") for e in encoded]
        return [
            {
                "labels": ["" if b else f"{len(e)}", "<b>x</b>"],
                "probabilities": [0.75, 0.25],
                "logits": [1.0, 0.0],
                "error": "is no image" if b else "",
            }
            for e, b in zip(encoded, bad, strict=True)
        ]


@contextmanager
def serving(limits):
    """(the model, port, the Server), answering in a thread."""
    model, up, ports = Model(), threading.Event(), []
    server = app.Server(model, "toy", {"name": "toy", "classes": ["a", "b"]}, limits)

    def ready(host, port):
        ports.append(port)
        up.set()

    thread = threading.Thread(target=app.run, args=(server, "127.0.0.1", 0, ready))
    thread.start()
    assert up.wait(20)
    try:
        yield model, ports[0], server
    finally:
        server.http.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def served():
    with serving(LIMITS) as found:
        yield found


@pytest.fixture(scope="module")
def impatient():
    """A server whose time is up soon."""
    with serving(replace(LIMITS, timeout=1.0)) as found:
        yield found


class Crowd:
    """Clients at once: each calls `one` in a thread of its own; their answers are in `answers`."""

    def __init__(self, model):
        self.model, self.answers, self.threads, self.changed = model, [], [], threading.Condition()

    def __enter__(self):
        self.model.entered.clear()
        self.model.go.clear()
        return self

    def __exit__(self, *error):
        self.model.go.set()
        for thread in self.threads:
            thread.join(20)

    def call(self, one, n=1):
        def answered():
            answer = one()
            with self.changed:
                self.answers.append(answer)
                self.changed.notify_all()

        for _ in range(n):
            self.threads.append(threading.Thread(target=answered))
            self.threads[-1].start()

    def wait_for_answers(self, n):
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.answers) >= n, 20), self.answers


@contextmanager
def submissions(server, n):
    """Wait, at the end of the block, until n more requests are in the queue."""
    submit, count, changed = server.batcher.submit, [], threading.Condition()

    def counted(images, pixels):
        futures = submit(images, pixels)
        with changed:
            count.append(len(images))
            changed.notify_all()
        return futures

    server.batcher.submit = counted
    try:
        yield
        with changed:
            assert changed.wait_for(lambda: len(count) >= n, 20), count
    finally:
        del server.batcher.submit


def ask(port, path="/v1/models/toy:predict", body=None, method=None, headers=None):
    """(status, answer)."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    body = json.dumps(body) if isinstance(body, (dict, list)) else body
    connection.request(method or ("POST" if body is not None else "GET"), path, body, headers or {})
    response = connection.getresponse()
    text = response.read()
    connection.close()
    try:
        return response.status, json.loads(text)
    except ValueError:
        return response.status, text.decode()


def raw(port, data, wait=10):
    """All that the server answers to bytes on the wire, until it hangs up."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as s:
        s.sendall(data)
        found = b""
        while piece := s.recv(65536):
            found += piece
        return found.decode("latin-1")


def test_tensorflow_servings_paths_in_rows_and_columns(served):
    _, port, _ = served
    image = png()
    for body in (
        {"instances": [b64(image), b64(b"no")]},
        {"instances": [{"image": b64(image)}, {"image": b64(b"no")}]},
    ):
        status, found = ask(port, body=body)
        assert status == 200 and [r["error"] for r in found["predictions"]] == ["", "is no image"]
        assert found["predictions"][0]["labels"][0] == str(len(image))
    for given in ([b64(image)], {"image": [b64(image)]}, {"image": b64(image)}):
        status, found = ask(port, body={"inputs": given, "signature_name": "serving_default"})
        assert status == 200 and found["outputs"]["labels"] == [[str(len(image)), "<b>x</b>"]]
    assert ask(port, "/v1/models/toy/versions/1:predict", {"instances": [b64(image)]})[0] == 200
    status, found = ask(port, "/v1/models/toy")
    assert status == 200 and found["model_version_status"][0]["state"] == "AVAILABLE"
    status, found = ask(port, "/v1/models/toy/metadata")
    assert found["model_spec"]["name"] == "toy" and "signature_def" in found["metadata"]
    assert ask(port, "/healthz") == (200, "ok")
    assert ask(port, "/v1/models/other")[0] == 404 and ask(port, "/nothing")[0] == 404
    assert ask(port, method="DELETE")[0] == 405


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ("", 400, "not JSON"),
        ("{", 400, "not JSON"),
        ("[" * 100_000, 400, "not JSON"),
        (b"\xff\xfe", 400, "not JSON"),
        ([], 400, "must be"),
        ({}, 400, "must be"),
        ({"instances": [], "inputs": []}, 400, "must be"),
        ({"instances": []}, 400, "empty"),
        ({"instances": {}}, 400, "empty"),
        ({"inputs": {"x": []}}, 400, "empty"),
        ({"instances": ["x"]}, 400, "Image 0 must be"),
        ({"instances": [{"b64": 3}]}, 400, "Image 0 must be"),
        ({"instances": [{"b64": "a?b"}]}, 400, "not base64"),
        ({"instances": [{"b64": "ä"}]}, 400, "not base64"),
        ({"instances": [{"b64": ""}] * 9}, 413, "at most 8"),
        ("x" * 300_000, 413, "at most 200,000"),
        ({"instances": [{"b64": ""}], "signature_name": "features"}, 400, "serving_default"),
        ({"instances": [b64(b"no")]}, 422, "The image is no image."),
        ({"inputs": {"image": b64(b"no")}}, 422, "The image is no image."),
    ],
)
def test_bad_bodies_get_4xx_and_a_reason(served, body, status, reason):
    found = ask(served[1], body=body)
    assert found[0] == status and reason in found[1]["error"] and "Traceback" not in str(found)


def test_a_host_that_the_server_does_not_listen_on_is_refused(served):
    """A page whose own name was made to lead here (DNS rebinding) sends that name."""
    model, port, _ = served
    before = len(model.sizes)
    for host in ("evil.example", "evil.example:80", "localhost.evil.example", "[::2]", "10.0.0.1", "127.0.0.1.evil"):
        for path, body in (("/", None), ("/v1/models/toy", None), ("/classify", png())):
            status, found = ask(port, path, body, headers={"Host": host})
            assert status == 403 and "--allow-host" in found["error"]
        assert ask(port, "/healthz", headers={"Host": host}) == (200, "ok")  # a load balancer's question
    assert len(model.sizes) == before
    for host in (f"localhost:{port}", "LOCALHOST", f"127.0.0.1:{port}", f"[::1]:{port}"):
        assert ask(port, "/v1/models/toy", headers={"Host": host})[0] == 200


def test_a_page_of_another_origin_may_not_post(served):
    model, port, _ = served
    before = len(model.sizes)
    here = {"Host": f"127.0.0.1:{port}"}
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": f"http://127.0.0.1:{port + 1}"},
        {"Origin": f"http://localhost:{port}"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        for path, body in (("/classify", png()), ("/v1/models/toy:predict", {"instances": [b64(png())]})):
            status, found = ask(port, path, body, headers={**here, **headers})
            assert status == 403 and "another origin" in found["error"]
    assert len(model.sizes) == before
    own = {**here, "Origin": f"http://127.0.0.1:{port}", "Sec-Fetch-Site": "same-origin"}
    assert ask(port, "/classify", png(), headers=own)[0] == 200


@pytest.mark.parametrize(
    ("host", "called", "good"),
    [
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "192.168.0.4", False),
        ("192.168.0.4", "192.168.0.4", True),
        ("192.168.0.4", "localhost", False),
        ("0.0.0.0", "192.168.0.4", True),
        ("::", "[fe80::1]:8501", True),
        ("0.0.0.0", "evil.example", False),
        ("0.0.0.0", "proxy.example", True),
    ],
)
def test_by_which_names_a_server_may_be_called(host, called, good):
    scope = {"path": "/", "method": "GET", "headers": [(b"host", called.encode())]}
    assert (app.refusal(scope, app.hosts_of(host), {"proxy.example"}) is None) == good


def test_an_allowed_host_may_post_from_its_own_pages():
    def post(origin):
        headers = [(b"host", b"127.0.0.1:8501"), (b"origin", origin)]  # as a proxy passes it on
        return app.refusal(
            {"path": "/", "method": "POST", "headers": headers}, app.hosts_of("127.0.0.1"), {"a.example"}
        )

    assert post(b"https://a.example") is None and post(b"https://b.example")[0] == 403
    assert app.Server(None, "x", {}, LIMITS, ["A.example:443", "::7"]).allow_hosts == {"a.example", "::7"}


def test_images_as_curl_sends_them(served):
    _, port, _ = served
    image = png()
    raw_body = {"Content-Type": "application/x-www-form-urlencoded"}  # curl --data-binary @photo.png
    assert ask(port, "/classify", image, headers=raw_body)[1]["labels"][0] == str(len(image))
    form = b'--xyz\r\nContent-Disposition: form-data; name="image"; filename="photo.png"\r\n'
    form += b"Content-Type: image/png\r\n\r\n"
    field = b'--xyz\r\nContent-Disposition: form-data; name="note"\r\n\r\nhello\r\n'
    kind = {"Content-Type": 'multipart/form-data; boundary="xyz"'}
    for body in (form + image + b"\r\n--xyz--\r\n", field + form + image + b"\r\n--xyz--\r\n"):
        status, found = ask(port, "/classify", body, headers=kind)
        assert status == 200 and found["labels"][0] == str(len(image))
    for body in (b"", field + b"--xyz--\r\n", 2 * (form + image + b"\r\n") + b"--xyz--\r\n", b"x" * 500):
        status, found = ask(port, "/classify", body, headers=kind)
        assert status == 400 and "curl -F" in found["error"]
    assert ask(port, "/classify", image, headers={"Content-Type": "multipart/form-data"})[0] == 400


def test_gzip_bodies_are_inflated_within_the_limit(served):
    _, port, _ = served
    text = json.dumps({"instances": [b64(png())], "signature_name": ""}).encode()
    for zipped in (gzip.compress(text), gzip.compress(text[:30]) + gzip.compress(text[30:])):
        status, found = ask(port, body=zipped, headers={"Content-Encoding": "gzip"})
        assert status == 200 and found["predictions"][0]["labels"][0] == str(len(png()))
    bomb = gzip.compress(b" " * 50_000_000)
    assert len(bomb) < LIMITS.body
    for body, status in ((bomb, 413), (text, 400), (gzip.compress(text)[:-9], 400), (b"", 400)):
        assert ask(port, body=body, headers={"Content-Encoding": "gzip"})[0] == status
    assert ask(port, body=text, headers={"Content-Encoding": "br"})[0] == 415


def test_answers_are_json_whatever_the_network_computes():
    class Nan:
        task = find("classification")

        def run(self, encoded):
            values = {"logits": np.array([[np.nan, 1.0], [np.inf, 1.0], [2.0, 1.0]])[: len(encoded)]}
            return {**values, "error": np.array([b"", b"", b"\x1b[31m"])[: len(encoded)]}

    rows = app.json_classifier(Nan())([b"a", b"b", b"c"])
    assert json.dumps(rows, allow_nan=False)
    assert (
        [r["logits"][0] for r in rows] == [None, None, 2.0] and "NaN" in rows[0]["error"] and "NaN" in rows[1]["error"]
    )


def test_float32_is_written_with_the_digits_that_tell_it():
    class Numbers:
        task = find("classification")

        def run(self, encoded):
            return {"logits": values[None], "error": np.array([b""])}

    values = np.random.default_rng(0).integers(0, 2**32, 4000, dtype="uint32").view("float32")
    values = np.append(values[np.isfinite(values)], np.float32([1e38, 1e-45, 0, 0.1, -3, 12345678.9]))
    found = app.json_classifier(Numbers())([b""])[0]["logits"]
    np.testing.assert_array_equal(np.float32(json.loads(json.dumps(found))), values)
    assert found[-4:] == [0, 0.100000001, -3, 12345679]


def test_the_page_shows_the_models_name(served):
    _, port, server = served
    assert '<h1 id="name">toy</h1>' in ask(port, "/")[1]
    server.name = "<script>alert(1)</script>\x1b"
    try:
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in ask(port, "/")[1]
    finally:
        server.name = "toy"


def test_the_page_knows_the_numbers_of_classes_only_for_the_colours_of_masks(served):
    _, port, server = served
    card = server.card
    assert 'data-classes="[]"' in ask(port, "/")[1]
    server.card = {**card, "task": "segmentation", "classes": ["sky", '<b>"']}
    try:
        assert 'data-classes="[&quot;sky&quot;, &quot;&lt;b&gt;\\&quot;&quot;]"' in ask(port, "/")[1]
    finally:
        server.card = card


def test_pixel_bombs_are_refused_before_they_are_decoded(served):
    model, port, _ = served
    before = len(model.sizes)
    assert ask(port, body={"instances": [b64(declaring(50_000))]})[0] == 413
    assert ask(port, body={"instances": [b64(declaring(700))] * 3})[0] == 413  # together too many
    assert len(model.sizes) == before
    assert ask(port, "/classify", png())[0] == 200
    assert ask(port, "/classify", b"GIF89a")[0] == 422 and ask(port, "/classify", b"")[0] == 422


def test_answers_are_sent_at_once_on_a_connection_that_is_kept(served):
    """With Nagle's algorithm the body waited 40 ms for the client to acknowledge the headers."""
    _, port, server = served
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/healthz")
    assert connection.getresponse().read() == b"ok"
    ours = connection.sock.getsockname()
    (kept,) = (c for c in list(server.http.server_state.connections) if c.client == ours)
    assert kept.transport.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    connection.close()


def test_a_large_body_is_read_in_another_thread(served, monkeypatch):
    _, port, _ = served
    threads = []
    monkeypatch.setattr(app, "check_pixels", lambda images, limits: threads.append(threading.current_thread()) or [0])
    monkeypatch.setattr("kzoo.serving.requests.SMALL", 1000)
    for n in (900, 1001):
        assert ask(port, "/classify", png() + bytes(n - len(png())))[0] == 200
        assert ask(port, body={"instances": [b64(png())], "signature_name": "", "x": " " * n})[0] == 200
    assert [thread.name.startswith("asyncio") for thread in threads] == [False, True, True, True]


def test_lying_duplicate_and_chunked_lengths(impatient):
    _, port, _ = impatient
    head = "POST /v1/models/toy:predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    assert " 408 " in raw(
        port, (head + "Content-Length: 500\r\n\r\n{").encode()
    )  # less than it says: the slot is freed
    assert " 400 " in raw(port, (head + "Content-Length: 5\r\nContent-Length: 6\r\n\r\n{}").encode())
    both = "Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    assert " 400 " in raw(port, (head + both).encode())
    assert " 400 " in raw(port, (head + "Content-Length: -1\r\n\r\n{}").encode())
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    assert " 413 " in raw(port, (head + "Transfer-Encoding: chunked\r\n\r\n").encode() + 4 * chunk)
    assert " 400 " in raw(port, b"\x16\x03\x01 no HTTP\r\n\r\n")
    assert raw(port, b"GET / HTTP/1.1\r\nHost") == ""  # headers that never end: hung up
    assert " 4" in raw(port, b"GET / HTTP/1.1\r\nX: " + b"y" * 70_000 + b"\r\n\r\n")
    assert ask(port, "/healthz") == (200, "ok")


def test_a_slow_client_is_hung_up_on_after_its_first_request_too(impatient):
    _, port, _ = impatient
    good = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert raw(port, good + b"GET /healthz HTTP/1.1\r\nHos").count(" 200 ") == 1  # hung up, or this would time out
    with socket.create_connection(("127.0.0.1", port), timeout=0.2) as s:  # answered, but its body goes on for ever
        s.sendall(b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n")
        for _ in range(500):
            try:
                s.sendall(b"x")
                if not s.recv(65536):
                    break
            except TimeoutError:
                continue  # nothing was answered for a while: send the next byte
            except OSError:
                break
        else:
            pytest.fail("the connection stayed open")


def test_requests_are_batched_a_full_queue_gets_503_and_all_others_an_answer(served):
    model, port, _ = served
    model.sizes.clear()

    def one():
        return ask(port, body={"instances": [b64(png())]})[0]

    with Crowd(model) as crowd:
        crowd.call(one)
        assert model.entered.wait(20)  # the first one occupies the model
        model.entered.clear()
        half = LIMITS.batch // 2
        crowd.call(one, half)
        assert model.entered.wait(20)  # beside it a full batch
        crowd.call(one, 15)
        crowd.wait_for_answers(15 - LIMITS.queue)  # the others fill the queue
        assert set(crowd.answers) == {503}
    assert crowd.answers.count(200) == 1 + half + LIMITS.queue and crowd.answers.count(503) == 15 - LIMITS.queue
    assert sorted(model.sizes) == [1, half, half, half]


def test_bodies_are_bounded_together_and_given_back(served):
    model, port, server = served
    big = png() + bytes(190_000)

    def one():
        return ask(port, "/classify", big)[0]

    with Crowd(model) as crowd:
        crowd.call(one, 6)
        crowd.wait_for_answers(4)
    assert crowd.answers.count(200) == LIMITS.held // len(big) == 2 and crowd.answers.count(503) == 4
    assert server.held == 0 and ask(port, "/classify", big)[0] == 200


def test_large_images_of_several_requests_are_not_computed_at_once(served):
    model, port, server = served
    large = png((900, 900))
    assert 900 * 900 <= LIMITS.pixels < 2 * 900 * 900
    model.sizes.clear()

    def one():
        return ask(port, body={"instances": [b64(large), b64(png())]})

    with Crowd(model) as crowd, submissions(server, 3):
        crowd.call(one, 3)
    for status, answer in crowd.answers:
        assert status == 200 and len(answer["predictions"]) == 2 and not any(r["error"] for r in answer["predictions"])
    assert len(crowd.answers) == 3 and model.sizes == [2, 2, 2], "each batch holds one of the large images"


def test_a_model_that_hangs_or_fails_frees_the_slots(impatient):
    model, port, server = impatient
    model.go.clear()
    status, found = ask(port, body={"instances": [b64(png())]})
    assert status == 503 and "No answer within" in found["error"]
    model.fail = True
    model.go.set()
    status, found = ask(port, body={"instances": [b64(png())]})
    model.fail = False
    assert status == 500 and found["error"] == "The model failed on this batch."
    assert ask(port, body={"instances": [b64(png())]})[0] == 200 and not server.batcher.waiting


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread")])
def test_too_little_memory_is_503_and_the_server_goes_on(served, error, monkeypatch, capsys):
    port = served[1]

    def fails(*args):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(app, "check_pixels", fails)
        status, found = ask(port, body={"instances": [b64(png())]})
        assert status == 503 and "too little memory" in found["error"]
    with monkeypatch.context() as patch:
        patch.setattr(Model, "__call__", fails)
        status, found = ask(port, body={"instances": [b64(png())]})
        assert status == 503 and "too little memory" in found["error"]
    said = capsys.readouterr().err
    assert "Error: a request found too little memory" in said and "Traceback" not in said
    assert ask(port, body={"instances": [b64(png())]})[0] == 200


def test_a_port_that_is_taken_and_a_folder_that_is_none(served, kzoo_command, tmp_path):
    server = app.Server(Model(), "x", {}, LIMITS)
    for host, port, other in (("127.0.0.1", served[1], "--port"), ("192.0.2.1", 0, "--host")):  # for documentation only
        with pytest.raises(ExportError, match=f"Can't listen on .* Choose another {other}"):
            app.run(server, host, port)
    code, _, err = kzoo_command("serve", tmp_path)
    assert code == 1 and "is not an export" in err and err.count("\n") == 1


@pytest.fixture
def process():
    """A running `kzoo serve`: (process, port)."""
    code = "from kzoo.cli import main; main()"
    p = subprocess.Popen(
        [sys.executable, "-c", code, "serve", str(EXPORT), "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    line = ""
    while "Serving" not in line:
        line = p.stderr.readline()
        assert line or p.poll() is None
    assert "/v1/models/mnist_cnn:predict)" in line
    yield p, int(line.split("127.0.0.1:")[1].split()[0])
    if p.poll() is None:
        p.kill()
    p.communicate()


@pytest.mark.slow
def test_the_real_thing_answers_as_the_export_does_and_loses_nothing_on_sigterm(process):
    from kzoo.exporting.reader import Export

    p, port = process
    data = [png((30 + i, 20), (i * 9, 99, 7)) for i in range(20)]
    want = Export(EXPORT).run(data)["logits"]
    found, refused = {}, []
    lock, enough = threading.Lock(), threading.Event()

    def client(k):
        for i in range(k, 400, 8):
            try:
                status, answer = ask(port, "/v1/models/mnist_cnn:predict", {"instances": [b64(data[i % 20])]})
            except (ConnectionRefusedError, ConnectionResetError):  # never accepted: the count below shows it
                return
            except OSError as e:
                refused.append(e)
                return
            with lock:
                found[i] = (status, answer)
                if len(found) >= 60:
                    enough.set()

    threads = [threading.Thread(target=client, args=(k,)) for k in range(8)]
    for t in threads:
        t.start()
    assert enough.wait(60)
    p.send_signal(signal.SIGTERM)
    for t in threads:
        t.join(30)
    _, err = p.communicate(timeout=30)
    assert p.returncode == 0 and "Traceback" not in err
    assert f"Stopped after {len(found):,} images" in err, "every image that was computed was answered"
    assert not refused and len(found) >= 60
    for i, (status, answer) in found.items():
        assert status == 200
        np.testing.assert_allclose(answer["predictions"][0]["logits"], want[i % 20], rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_the_page_in_a_browser(served, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if not browser:
        pytest.skip("needs chromium")
    (tmp_path / "red.png").write_bytes(png())
    (tmp_path / "bad.png").write_bytes(b"no")
    with playwright.sync_playwright() as p:
        window = p.chromium.launch(executable_path=browser, args=["--no-sandbox"])
        page = window.new_page()
        wrong = []
        page.on("pageerror", lambda error: wrong.append(error))
        page.goto(f"http://127.0.0.1:{served[1]}/")
        page.set_input_files("#file", str(tmp_path / "red.png"))
        page.wait_for_selector("#answer tr")
        assert page.inner_text("#answer tr:nth-child(1)").split() == [str(len(png())), "75.0", "%"]
        assert "<b>x</b>" in page.inner_text("#answer tr:nth-child(2)")  # a label is no markup
        page.set_input_files("#file", str(tmp_path / "bad.png"))
        page.get_by_text("is no image").wait_for()
        # A file that is dropped.
        page.evaluate(
            """data => {
            const bytes = Uint8Array.from(atob(data), c => c.charCodeAt(0)), transfer = new DataTransfer();
            transfer.items.add(new File([bytes], "dropped.png", {type: "image/png"}));
            dispatchEvent(new DragEvent("drop", {dataTransfer: transfer}));
        }""",
            base64.b64encode(png((50, 50))).decode(),
        )
        page.get_by_text(str(len(png((50, 50)))), exact=True).wait_for()
        assert not wrong
        window.close()


def test_the_cores_are_shared_before_tensorflow_begins(monkeypatch):
    asked = []

    def load(*args):
        raise ExportError(f"asked {len(asked)} times")

    monkeypatch.setattr(app, "two_at_once", asked.append)
    monkeypatch.setattr(app, "Export", load)
    with pytest.raises(ExportError, match="asked 1 times"):
        app.serve(Path(__file__).parents[2] / "saved_models" / "lenet5")
    assert 0 < asked[0] < 1e9
