"""Files are written whole or not at all."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from support.processes import ROOT

import kzoo
from kzoo.errors import KzooError
from kzoo.files import hold_lock, sha256, write_atomically


def leftovers(folder):
    return [p.name for p in folder.iterdir() if p.name.startswith(".tmp-")]


def test_writes_and_replaces(tmp_path):
    path = tmp_path / "a.weights.h5"
    for text in ("one", "two"):
        with write_atomically(path, "w") as f:
            f.write(text)
            assert f.name.endswith("a.weights.h5") and (not path.exists() or path.read_text() == "one")
        assert path.read_text() == text
    assert not leftovers(tmp_path)
    assert sha256(path) == "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"


def test_writes_by_name(tmp_path):
    """As keras.Model.save does: the library opens the path itself."""
    with write_atomically(tmp_path / "x.bin") as f, open(f.name, "wb") as other:
        other.write(b"from a library")
    assert (tmp_path / "x.bin").read_bytes() == b"from a library"


@pytest.mark.parametrize("error", [ValueError("bug"), KeyboardInterrupt(), OSError(errno.ENOSPC, "Full")])
def test_an_error_leaves_the_old_file(tmp_path, error):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with pytest.raises(KzooError if isinstance(error, OSError) else type(error)), write_atomically(path) as f:
        f.write(b"new")
        raise error
    assert path.read_bytes() == b"old" and not leftovers(tmp_path)


def test_links_and_what_is_no_file(tmp_path):
    (tmp_path / "real").write_text("old")
    (tmp_path / "link").symlink_to("real")
    with write_atomically(tmp_path / "link", "w") as f:
        f.write("new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "real").read_text() == "new"
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE, text=True)
    with write_atomically(tmp_path / "pipe", "w") as f:
        f.write("through")
    assert reader.communicate(timeout=20)[0] == "through" and (tmp_path / "pipe").is_fifo()
    code = "from kzoo.files import write_atomically\nwith write_atomically('/dev/stdout', 'w') as f: f.write('piped')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == "piped"
    with write_atomically("/dev/null") as f:
        f.write(b"nothing")
    assert not leftovers(tmp_path)


def test_an_input_that_is_missing_is_not_our_output(tmp_path):
    with pytest.raises(FileNotFoundError), write_atomically(tmp_path / "x"):
        (tmp_path / "input").read_bytes()


def test_a_folder_that_is_missing_or_a_folder_in_the_way(tmp_path):
    with pytest.raises(KzooError, match=r"Can't write .*/no/x: No such file"), write_atomically(tmp_path / "no" / "x"):
        pass
    with pytest.raises(KzooError, match="it is a folder"), write_atomically(tmp_path):
        pass


LIMITED = """
import resource, signal, sys
from kzoo.errors import KzooError
from kzoo.files import write_atomically
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with write_atomically(sys.argv[1]) as f:
        f.write(b"x" * 2000)
except KzooError as e:
    print(e)
"""


def test_a_file_size_limit(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    out = subprocess.run([sys.executable, "-c", LIMITED, path], capture_output=True, text=True, check=True).stdout
    assert out.startswith(f"Can't write {path}: File too large.")
    assert path.read_bytes() == b"old" and not leftovers(tmp_path)


KILLED = """
import os, signal, sys
from kzoo.files import write_atomically
with write_atomically(sys.argv[1]) as f:
    f.write(b"x" * 2000)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_kill_leaves_the_old_file(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    assert subprocess.run([sys.executable, "-c", KILLED, path]).returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"


def test_permissions(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"old")
    path.chmod(0o640)
    with write_atomically(path) as f:
        f.write(b"new")
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_kill_leaves_the_old_folder_or_the_new_one(tmp_path):
    from kzoo.files import write_folder

    out = tmp_path / "export"
    with write_folder(out) as folder:
        (folder / "a").write_text("1")
    code = (
        "from kzoo.files import write_folder\nimport itertools\n"
        "for n in itertools.count(2):\n"
        f"    with write_folder({str(out)!r}, replace=lambda: None) as f: [(f / x).write_text(str(n)) for x in 'ab']\n"
    )
    rng = np.random.default_rng(0)
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)
        time.sleep(0.25 + rng.uniform(0, 0.1))
        process.kill()
        process.wait()
        found = {p.name: p.read_text() for p in out.iterdir()}
        assert found.get("a") and found.get("b", found["a"]) == found["a"]
    with pytest.raises(kzoo.KzooError, match="exists"), write_folder(out):
        pass


def test_a_lock_is_refused_or_waited_for_as_the_caller_says(tmp_path):
    lock, events, waiting = tmp_path / "lock", [], threading.Event()

    def refuse():
        raise KzooError("in use")

    def second():
        with hold_lock(lock, on_busy=waiting.set):
            events.append("second")

    with hold_lock(lock, on_busy=refuse) as held:
        if not held:
            pytest.skip("this system has no flock")
        with pytest.raises(KzooError, match="in use"), hold_lock(lock, on_busy=refuse):
            pass
        thread = threading.Thread(target=second)
        thread.start()
        assert waiting.wait(60)
        events.append("first")
    thread.join(60)
    assert events == ["first", "second"]
    with pytest.raises(OSError) as e, hold_lock(tmp_path / "no" / "lock", on_busy=refuse):
        pass
    assert e.value.filename is not None
