"""Downloads: verified, resumed, locked; nothing wrong ever has the final name. A server on 127.0.0.1 is the world."""

import hashlib
import signal
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from support.processes import wait_for

from kzoo.catalog import Weights
from kzoo.errors import WeightsError
from kzoo.weights import fetch

module = sys.modules["kzoo.weights.fetch"]  # kzoo.weights.fetch is the function

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA = "sha256:" + hashlib.sha256(CONTENT).hexdigest()


class Server:
    """Serves CONTENT; `behave` is a list of faults, one for each request, after which it behaves."""

    def __init__(self):
        self.requests, self.behave, self.ranges, self.content, self.delay = [], [], True, CONTENT, 0.0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                wanted = self.headers.get("Range")
                outer.requests.append(wanted)
                fault = outer.behave.pop(0) if outer.behave else None
                if isinstance(fault, int) and fault >= 400:
                    self.send_error(fault)
                    return
                start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and outer.ranges else 0
                if start >= len(outer.content):
                    self.send_error(416)
                    return
                body = outer.content[start:]
                self.send_response(206 if start else 200)
                if start:
                    first = start + 1 if fault == "wrong range" else start
                    self.send_header("Content-Range", f"bytes {first}-{len(outer.content) - 1}/{len(outer.content)}")
                length = 10**12 if fault == "huge" else len(body)
                if fault != "no length":
                    self.send_header("Content-Length", str(length))
                self.end_headers()
                if fault == "half":
                    body = body[: len(body) // 2]
                try:
                    for i in range(0, len(body), 1 << 16):
                        self.wfile.write(body[i : i + (1 << 16)])
                        self.wfile.flush()
                        time.sleep(outer.delay)
                except OSError:
                    pass
                self.close_connection = True

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/models/net.h5"


@pytest.fixture
def server():
    server = Server()
    yield server
    server.server.shutdown()
    server.server.server_close()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    for name in ("KZOO_CACHE", "KERAS_HOME", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "PAUSE", 0.001)
    return tmp_path / "KZOO_CACHE"


def names(folder):
    return sorted(p.name for p in folder.iterdir() if not p.name.endswith(".lock")) if folder.exists() else []


def weights(server, hash=SHA, **more):
    return Weights("imagenet", server.url, hash, **more)


@pytest.mark.parametrize("hash", [SHA, SHA[:15], "md5:" + hashlib.md5(CONTENT).hexdigest()])
def test_downloads_once(server, cache, hash):
    path = fetch(weights(server, hash))
    assert path == cache / "net.h5" and path.read_bytes() == CONTENT and names(cache) == ["net.h5"]
    assert fetch(weights(server, hash)) == path and len(server.requests) == 1


def test_draws_a_bar(server, cache, capsys):
    fetch(weights(server), progress=True)
    assert "net.h5" in capsys.readouterr().err


@pytest.mark.parametrize("hash", ["md4:1234567890", "sha256:12", "1234567890"])
def test_invalid_hashes(server, hash):
    with pytest.raises(WeightsError, match="A hash is 'sha256:' or 'md5:'"):
        fetch(weights(server, hash))


def test_resumes(server, cache):
    server.behave = ["half", "half"]
    assert fetch(weights(server)).read_bytes() == CONTENT
    assert server.requests == [None, "bytes=524288-", "bytes=786432-"]


def test_goes_on_where_a_former_download_stopped(server, cache):
    cache.mkdir()
    (cache / "net.h5.part").write_bytes(CONTENT[:1000])
    assert fetch(weights(server)).read_bytes() == CONTENT
    assert server.requests == ["bytes=1000-"] and names(cache) == ["net.h5"]


@pytest.mark.parametrize("part", [b"of another file" * 100, CONTENT + b"more", CONTENT[:-1] + b"x"])
def test_a_part_of_another_file(server, cache, part):
    cache.mkdir()
    (cache / "net.h5.part").write_bytes(part)
    assert fetch(weights(server)).read_bytes() == CONTENT


def test_a_part_that_is_complete(server, cache):
    cache.mkdir()
    (cache / "net.h5.part").write_bytes(CONTENT)
    assert fetch(weights(server)).read_bytes() == CONTENT and names(cache) == ["net.h5"]


def test_a_server_that_can_not_resume(server, cache):
    server.ranges, server.behave = False, ["half"]
    assert fetch(weights(server)).read_bytes() == CONTENT


@pytest.mark.parametrize("fault", ["wrong range", "no length", 500])
def test_faults_that_pass(server, cache, fault):
    server.behave = ["half", fault]
    assert fetch(weights(server)).read_bytes() == CONTENT


def fails(weights, *match):
    with pytest.raises(WeightsError) as e:
        fetch(weights)
    message = str(e.value)
    assert "\n" not in message and all(m in message for m in match), message
    return message


def test_wrong_content(server, cache):
    server.content = b"<html>Sign in to the network</html>" * 1000
    fails(weights(server), "gave a file with the hash sha256:", SHA, str(cache / "net.h5"), server.url)
    assert names(cache) == []


def test_gone(server, cache):
    server.behave = [404]
    fails(weights(server), "404", f"Get it from {server.url} and put it at {cache / 'net.h5'}.")
    assert len(server.requests) == 1 and names(cache) == []


def test_breaks_for_ever(server, cache):
    server.behave = ["half"] + [503] * 50
    fails(weights(server), "503", server.url, str(cache / "net.h5"))
    assert names(cache) == ["net.h5.part"]  # for the next time


def test_a_single_attempt_does_not_wait(cache, monkeypatch):
    """A firewall that drops packets looks like a server that takes connections and never answers."""
    monkeypatch.setattr(module, "SINGLE_TIMEOUT", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        w = Weights("imagenet", f"http://127.0.0.1:{silent.getsockname()[1]}/file.h5", SHA)
        with pytest.raises(WeightsError, match="timed out"):
            fetch(w, single_attempt=True)
        silent.settimeout(0)
        silent.accept()[0].close()
        with pytest.raises(BlockingIOError):  # one try
            silent.accept()


def test_offline(cache):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{s.getsockname()[1]}/net.h5"
    fails(Weights("imagenet", url, SHA), "Can't download net.h5", "refused", url, str(cache / "net.h5"))


def test_too_much(server, cache):
    server.behave = ["huge"]
    fails(weights(server), "declares 1,000,000,000,000 bytes")
    server.content, server.behave = CONTENT * 12, ["no length"]
    fails(weights(server, size=len(CONTENT)), "sends more than")
    assert not (cache / "net.h5").exists()


def test_a_cache_that_can_not_be_written(server, cache):
    cache.write_text("a file")
    fails(weights(server), "Can't store net.h5", server.url)


def test_a_damaged_file_in_the_cache(server, cache):
    path = fetch(weights(server))
    path.write_bytes(CONTENT[:-1] + b"?")  # one bit is enough
    fails(weights(server), str(path), SHA, server.url)


def test_a_file_without_published_hash_is_held_to_its_first(server, cache):
    path = fetch(weights(server, ""))
    assert names(cache) == [path.name, f"{path.name}.sha256"] and fetch(weights(server, "")) == path
    path.write_bytes(CONTENT[:-1] + b"?")
    fails(weights(server, ""), str(path), SHA)


def test_files_of_one_name_from_two_addresses_are_two(server, cache):
    one = fetch(weights(server, ""))
    server.content = b"another" * 9
    other = fetch(Weights("imagenet", server.url.replace("models", "others"), ""))
    assert other != one and other.read_bytes() == server.content and one.read_bytes() == CONTENT
    assert one.name.startswith("net-") and one.suffix == ".h5"


@pytest.mark.parametrize("folder", ["KERAS_HOME/models", "TORCH_HOME/hub/checkpoints"])
def test_files_that_keras_and_torch_have(server, tmp_path, folder):
    theirs = tmp_path / folder / "net.h5"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(CONTENT)
    assert fetch(weights(server)) == theirs and not server.requests
    theirs.write_bytes(b"another")
    assert fetch(weights(server)) != theirs and len(server.requests) == 1


def test_local_files(tmp_path):
    (tmp_path / "a.h5").write_bytes(CONTENT)
    assert fetch(Weights("mine", str(tmp_path / "a.h5"), SHA)) == tmp_path / "a.h5"
    fails(Weights("mine", str(tmp_path / "a.h5"), "sha256:00000000"), "not the file that these weights name")
    fails(Weights("mine", str(tmp_path / "b.h5")), "There is no weights file")


PROCESS = """
import sys
from kzoo.catalog import Weights
from kzoo.weights import fetch
print(fetch(Weights("imagenet", sys.argv[1], sys.argv[2])))
"""


def start(server):
    return subprocess.Popen(
        [sys.executable, "-c", PROCESS, server.url, SHA], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_processes_at_once(server, cache):
    server.delay = 0.05
    processes = [start(server) for _ in range(3)]
    for p in processes:
        out, err = p.communicate(timeout=60)
        assert p.returncode == 0 and out.decode().strip() == str(cache / "net.h5"), err.decode()
    assert len(server.requests) == 1 and (cache / "net.h5").read_bytes() == CONTENT


def test_killed(server, cache):
    """Killed three times in the middle: nothing under the final name, and the next one only gets the rest."""
    server.delay, part = 0.1, cache / "net.h5.part"
    for _ in range(3):
        had = part.stat().st_size if part.exists() else 0
        p = start(server)
        wait_for(lambda had=had: part.exists() and part.stat().st_size > had, p)
        p.send_signal(signal.SIGKILL)
        p.communicate(timeout=20)
        assert not (cache / "net.h5").exists() and (cache / "net.h5.part").exists()
    server.delay = 0.0
    assert fetch(weights(server)).read_bytes() == CONTENT
    assert all(r is not None for r in server.requests[1:])
