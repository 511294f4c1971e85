"""The feature cache: by content, once, checked, shared, bounded. A fake network counts what it is asked for."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kzoo.errors import DataError, KzooError
from kzoo.finetuning import features as module
from kzoo.finetuning.features import Cache, content_hash, features, limit, prune, read_segment
from kzoo.interrupt import Interrupted

ROOT = Path(__file__).resolve().parents[2]


class Fake:
    """Stands for the backbone: the mean colour and a constant; counts its images."""

    def __init__(self):
        self.seen = 0

    def __call__(self):
        return self.prepare, lambda: self.predict

    def prepare(self, image, view=0):
        if isinstance(image, bytes):
            if b"broken" in image:
                raise DataError("can't be decoded (it is broken)")
            import io

            image = np.asarray(Image.open(io.BytesIO(image)).convert("RGB").resize((4, 4)))
        return image[:, ::-1] if view else image

    def predict(self, x):
        self.seen += len(x)
        return np.concatenate([x.mean((1, 2)), x[:, 0, 0]], 1).astype("float32")


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    paths = []
    for i in range(10):
        paths.append(str(tmp_path / "photos" / f"{i}.png"))
        Image.fromarray(rng.integers(0, 256, (8, 6, 3), dtype="uint8")).save(paths[-1])
    return paths


def cache(tmp_path, **key):
    return Cache({"model": "fake", **key}, tmp_path / "cache")


def test_a_second_run_computes_nothing_also_from_another_folder(photos, tmp_path):
    fake = Fake()
    first = features(photos, cache(tmp_path), fake)
    assert fake.seen == first.computed == 10 and first.features.shape == (10, 6)
    other = tmp_path / "elsewhere"
    other.mkdir()
    moved = []
    for i, path in enumerate(photos):
        moved.append(str(other / f"renamed{i}.img"))
        Path(moved[-1]).write_bytes(Path(path).read_bytes())

    def fail():
        return pytest.fail("the network was asked for")

    second = features(moved, cache(tmp_path), fail)
    np.testing.assert_array_equal(first.features, second.features)
    expected = np.asarray(Image.open(photos[3]).convert("RGB").resize((4, 4)), "float32").mean((0, 1))
    np.testing.assert_allclose(second.features[3, :3], expected, rtol=1e-5)


def test_what_is_new_is_computed_and_the_same_content_once(photos, tmp_path):
    features(photos[:7], cache(tmp_path), Fake())
    fake = Fake()
    got = features([*photos, photos[9], photos[9]], cache(tmp_path), fake)
    assert fake.seen == got.computed == 3
    np.testing.assert_array_equal(got.features[9], got.features[11])


def test_another_key_or_view_is_another_cache(photos, tmp_path):
    features(photos, cache(tmp_path), Fake())
    for key in ({"weights": "x"}, {"precision": "bfloat16"}, {"input_shape": [5, 5, 3]}):
        fake = Fake()
        features(photos, cache(tmp_path, **key), fake)
        assert fake.seen == 10, key
    fake = Fake()
    mirrored = features(photos, cache(tmp_path), fake, view=1)
    plain = features(photos, cache(tmp_path), Fake())
    assert fake.seen == 10 and not np.array_equal(mirrored.features[:, 3:], plain.features[:, 3:])


@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_a_corrupt_file_is_noticed_and_rebuilt(photos, tmp_path, damage):
    before = features(photos, cache(tmp_path), Fake())
    segment = next((tmp_path / "cache").glob("*/*.features"))
    raw = bytearray(segment.read_bytes())
    raw[len(raw) // 2] ^= 1
    segment.write_bytes({"flip": bytes(raw), "cut": bytes(raw[:-5]), "empty": b""}[damage])
    again, fake = cache(tmp_path), Fake()
    assert again.damaged == [segment.name]
    after = features(photos, again, fake)
    assert fake.seen == 10
    np.testing.assert_array_equal(before.features, after.features)
    assert cache(tmp_path).damaged == []


def test_every_flipped_bit_of_a_segment_is_noticed(tmp_path):
    c = cache(tmp_path)
    c.add(0, [b"a" * 32], np.ones((1, 2), "float32"))
    path = next(c.folder.glob("*.features"))
    good = path.read_bytes()
    for i in range(len(good)):
        path.write_bytes(good[:i] + bytes([good[i] ^ 1]) + good[i + 1 :])
        with pytest.raises(ValueError):
            read_segment(path)


def test_unreadable_photos_are_left_out_and_remembered(photos, tmp_path):
    Path(photos[2]).write_bytes(Path(photos[2]).read_bytes() + b"broken")
    Path(photos[5]).write_bytes(b"no image")
    os.remove(photos[7])
    got = features(photos, cache(tmp_path), Fake())
    reasons = dict(got.skipped)
    assert set(reasons) == {2, 5, 7} and "broken" in reasons[2] and "is not a JPEG" in reasons[5]
    assert "No such file" in reasons[7] and list(got.kept) == [0, 1, 3, 4, 6, 8, 9] and len(got.features) == 7

    def fail():
        return pytest.fail("the network was asked for")

    assert set(dict(features(photos, cache(tmp_path), fail).skipped)) == {2, 5, 7}


def test_what_cannot_be_read_now_is_not_damaged_nor_remembered(photos, tmp_path, monkeypatch):
    features(photos[:5], cache(tmp_path), Fake())
    kept = sorted(cache(tmp_path).folder.iterdir())

    def refuse(*args):
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(module, "read_segment", refuse)
        assert cache(tmp_path).damaged == [] and sorted(cache(tmp_path).folder.iterdir()) == kept
    fake = Fake()
    fake.prepare, whole = lambda image, view=0: refuse(), fake.prepare
    got = features(photos, cache(tmp_path), fake)
    assert dict(got.skipped).keys() == {5, 6, 7, 8, 9} and "Too many open files" in got.skipped[0][1]
    fake.prepare = whole
    assert not features(photos, cache(tmp_path), fake).skipped
    (cache(tmp_path).folder / "bad.json").write_text("[1]")
    assert cache(tmp_path).bad == {}


def test_a_cache_of_many_files_holds_none_open(tmp_path):
    c = cache(tmp_path)
    for i in range(40):
        c.add(0, [bytes([i]) * 32, bytes([i, 0]) * 16], np.full((2, 3), i, "float32"))
    again = cache(tmp_path)  # holds one: its lock
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    found = module.gather(again, 0, [bytes([i]) * 32 for i in (7, 39, 7, 0)])
    np.testing.assert_array_equal(found[:, 1], [7, 39, 7, 0])
    assert before == (len(os.listdir("/proc/self/fd")) if before else 0)
    for path in again.folder.glob("*.features"):
        path.unlink()
    with pytest.raises(KzooError, match="gone or can't be read"):
        module.gather(again, 0, [bytes([7]) * 32])


def test_a_file_that_changes_during_the_run_is_named(photos, tmp_path):
    hashes = [content_hash(p) for p in photos]
    Image.new("RGB", (9, 9)).save(photos[4])
    with pytest.raises(DataError, match=r"4\.png changed while it was used"):
        features(photos, cache(tmp_path), Fake(), hashes=hashes)
    assert content_hash(photos[4]) not in {name for _, name in cache(tmp_path).index}


def test_a_full_disk_is_a_clear_error_and_keeps_what_was_done(photos, tmp_path, monkeypatch):
    pytest.importorskip("resource")
    monkeypatch.setattr(module, "MAX_SEGMENT_IMAGES", 4)
    monkeypatch.setattr(module, "BATCH", 2)
    code = f"""
import resource, signal, sys
sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "tests" / "finetuning")!r}]
import numpy as np
from kzoo.finetuning import features as module
from test_features import Fake, cache
from pathlib import Path
module.MAX_SEGMENT_IMAGES, module.BATCH = 4, 2
c = cache(Path({str(tmp_path)!r}))
first = module.features({photos!r}[:4], c, Fake())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (150, 150))
module.features({photos!r}, c, Fake())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1 and "The feature cache" in done.stderr and "are kept" in done.stderr, done.stderr
    fake = Fake()
    features(photos, cache(tmp_path), fake)
    assert fake.seen == 6, "four were finished before the disk was full"
    assert not list((tmp_path / "cache").rglob(".tmp-*"))


def test_a_cache_that_cannot_be_made_says_what_to_do(tmp_path):
    (tmp_path / "cache").write_text("a file in the way")
    with pytest.raises(KzooError, match="KZOO_FEATURES"):
        cache(tmp_path)


def test_an_interrupted_run_goes_on_where_it_stopped(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 2)
    fake = Fake()
    with pytest.raises(Interrupted):
        features(photos, cache(tmp_path), fake, stopped=lambda: fake.seen >= 4)
    again = Fake()
    features(photos, cache(tmp_path), again)
    assert again.seen == 10 - fake.seen and 0 < fake.seen < 10


def test_an_error_of_the_network_keeps_the_finished_batches(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "BATCH", 2)

    class Failing(Fake):
        def predict(self, x):
            if self.seen >= 4:
                raise RuntimeError("out of memory")
            return super().predict(x)

    with pytest.raises(RuntimeError, match="out of memory"):
        features(photos, cache(tmp_path), Failing())
    fake = Fake()
    features(photos, cache(tmp_path), fake)
    assert fake.seen == 6


def test_two_at_once_do_the_same_work_at_worst(photos, tmp_path):
    found, threads = [], []
    for _ in range(2):
        threads.append(threading.Thread(target=lambda: found.append(features(photos, cache(tmp_path), Fake()))))
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    np.testing.assert_array_equal(found[0].features, found[1].features)
    assert cache(tmp_path).damaged == []


def test_the_oldest_cache_goes_first(photos, tmp_path):
    for n in (1, 2):
        features(photos, cache(tmp_path, n=n), Fake())
    old, new = (cache(tmp_path, n=n).folder for n in (1, 2))
    os.utime(old / "key.json", (1, 1))
    size = sum(p.stat().st_size for p in new.iterdir())
    (tmp_path / "cache" / ".tmp-00000000-left").mkdir()  # of a process that was killed while it deleted
    prune(tmp_path / "cache", new, size)
    assert not old.exists() and len(cache(tmp_path, n=2).index) == 10
    prune(tmp_path / "cache", new, 0)
    assert new.exists(), "never the one in use"
    assert not list((tmp_path / "cache").glob(".tmp-*"))


def test_a_cache_that_another_process_uses_is_not_deleted(tmp_path):
    pytest.importorskip("fcntl")
    code = f"""
import sys
sys.path[:0] = [{str(ROOT)!r}]
import numpy as np
from kzoo.finetuning.features import Cache
c = Cache({{"model": "fake", "n": 1}}, {str(tmp_path / "cache")!r})
print(c.folder, flush=True)
sys.stdin.readline()
c.add(0, [b"1" * 32], np.ones((1, 3), "float32"))
print(c.find(0, b"1" * 32).tolist(), flush=True)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with other:
        folder = Path(other.stdout.readline().strip())
        for _ in range(2):  # two processes prune
            prune(tmp_path / "cache", tmp_path / "none", 0)
        assert folder.is_dir()
        out, _ = other.communicate("go on\n")
    assert out.strip() == "[1.0, 1.0, 1.0]" and other.returncode == 0
    prune(tmp_path / "cache", tmp_path / "none", 0)
    assert not folder.exists()
    again = cache(tmp_path, n=1)
    assert again.folder == folder and not again.index


@pytest.mark.parametrize("written", [10, None], ids=["half", "all of it, but for its name"])
def test_a_segment_that_another_process_is_writing_is_neither_read_nor_deleted(tmp_path, written):
    first = cache(tmp_path)
    first.add(0, [b"1" * 32], np.ones((1, 3), "float32"))
    (segment,) = first.folder.glob("0-*.features")
    content = segment.read_bytes()
    segment.unlink()
    with module.write_atomically(segment) as f:
        begun = f.write(content[:written])
        f.flush()
        other = cache(tmp_path)
        assert other.damaged == [] and not other.index
        f.write(content[begun:])
    assert segment.read_bytes() == content
    assert cache(tmp_path).find(0, b"1" * 32).tolist() == [1.0, 1.0, 1.0]


def test_two_that_fill_and_prune_at_once_do_not_disturb_each_other(tmp_path):
    pytest.importorskip("fcntl")
    faults = []

    def work(mine):
        try:
            for i in range(30):
                c = cache(tmp_path, n=(i + mine) % 3)
                name = bytes([mine, i]) * 16
                c.add(0, [name], np.full((1, 3), i, "float32"))
                prune(c.root, c.folder, 0)
                np.testing.assert_array_equal(module.gather(c, 0, [name]), np.full((1, 3), i, "float32"))
                del c
        except BaseException as e:
            faults.append(repr(e))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert faults == []


def test_the_limit_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("KZOO_FEATURES_LIMIT", "1.5G")
    assert limit() == 3 << 29
    monkeypatch.setenv("KZOO_FEATURES_LIMIT", "much")
    with pytest.raises(KzooError, match="500M"):
        limit()


def test_more_features_than_memory_lie_in_a_file(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES_IN_MEMORY", 100)
    got = features(photos, cache(tmp_path), Fake())
    assert isinstance(got.features, np.memmap)
    plain = features(photos, cache(tmp_path), Fake())
    np.testing.assert_array_equal(got.features, plain.features)
    assert not list((tmp_path / "cache").rglob(".tmp-*"))


def test_arrays_and_encoded_bytes_are_images_too(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), dtype="uint8")
    got = features(x, cache(tmp_path), Fake())
    np.testing.assert_allclose(got.features[:, :3], x.mean((1, 2)), rtol=1e-5)
    key = json.loads(next((tmp_path / "cache").glob("*/key.json")).read_text())
    assert key["model"] == "fake" and "version" in key


def test_nothing_here_imports_keras():
    heavy = "{'keras', 'tensorflow', 'sklearn'} & set(sys.modules)"
    use = "import sys; import kzoo.finetuning.pipeline; from kzoo.finetuning.backbone import code_of"
    code = f"{use}; code_of('kzoo.models.resnet'); print(sorted({heavy}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert out.strip() == "[]"
