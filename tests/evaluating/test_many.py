"""Any number of pictures into one file: each once, whatever happens."""

import csv
import errno
import hashlib
import io
import json
import os
import shutil
import signal
from itertools import chain

import numpy as np
import pytest
from PIL import Image
from support import processes

import kzoo
from kzoo import files
from kzoo.data.guards import npy
from kzoo.errors import DataError, KzooError, RunError
from kzoo.evaluating import many
from kzoo.evaluating.loading import LoadedModel
from kzoo.evaluating.many import predict_files
from kzoo.evaluating.names import shard_of
from kzoo.files import hold_lock
from kzoo.interrupt import Interrupted
from kzoo.tasks import find

CLASSES = ("ant", "=bee", "käfer")
ODD = [os.fsdecode(b"\xff.npy"), "a\nb.npy", 'c,"d".npy', "=e.npy"]


def answer(encoded, top):
    """Answers that tell what was seen, or an error for every picture that begins with 7."""
    rows = []
    for data in encoded:
        value = hashlib.sha256(data).digest()[0]
        found = [{"class": CLASSES[(value + i) % 3], "probability": (value + 1) / 300 / 2**i} for i in range(3)]
        rows.append({"top": found[:top]} if value % 16 else {"error": "is spoilt"})
    return rows


MODEL = LoadedModel(find("classification"), CLASSES, answer, channels=1)


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """A folder with 45 pictures in three folders, and parts of five rows."""
    monkeypatch.setattr(many, "PART", 5)
    folder = tmp_path / "photos"
    for i, name in enumerate([*ODD, *(f"{i % 3}/{i}.npy" for i in range(40))]):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(npy(np.full((3, 3, 1), i, np.uint8)))
    (folder / "note.txt").write_text("no picture")
    return folder


def rows_of(path):
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


def expected(folder):
    """By `kzoo.predict`, of an independent list of the files."""
    paths = [os.path.join(where, name) for where, _, names in os.walk(folder) for name in names]
    return sorted(kzoo.predict(MODEL, paths), key=lambda row: row["image"])


def by_name(rows):
    return sorted(rows, key=lambda row: row["image"])


def test_the_rows_of_predict_in_both_forms_and_the_file_among_the_pictures(photos, capfd):
    wanted = expected(photos)
    written = predict_files(MODEL, photos, photos / "rows.jsonl", batch_size=4)
    errors = sum("error" in row for row in wanted)
    assert written == many.Written(photos / "rows.jsonl", 45, errors) and errors > 1
    assert by_name(rows_of(photos / "rows.jsonl")) == wanted
    assert f"rows.jsonl: 45 images, {errors} of them unreadable" in capfd.readouterr().err
    assert predict_files(MODEL, photos, photos / "rows.jsonl", resume=True) == written  # nothing to do
    (photos / "rows.jsonl").unlink()
    written = predict_files(MODEL, [photos], photos / "rows.csv", top=2, quiet=True)
    with open(photos / "rows.csv", encoding="utf-8", newline="") as f:
        table = list(csv.reader(f))
    assert table[0] == ["image", "error", "class_1", "probability_1", "class_2", "probability_2", "abstain"]
    assert len({row[0] for row in table[1:]}) == 45 == written.images and any(row[2] == "'=bee" for row in table)
    assert predict_files(MODEL, photos, photos / "rows.csv", resume=True) == written
    assert not [name for name in os.listdir(photos) if name.startswith(".")]


def test_shards_divide_and_lists_count_once(photos, tmp_path):
    for i in range(3):
        predict_files(MODEL, f"{photos}/", photos / "r.jsonl", shards=3, shard=i, quiet=True)
    parts = [rows_of(photos / f"r-{i}-of-3.jsonl") for i in range(3)]
    assert all(parts) and by_name(chain(*parts)) == by_name(
        row for row in expected(photos) if not row["image"].endswith(".jsonl")
    )
    names = [os.path.join(photos, name) for name in (*ODD, "0/0.npy", "gone.npy")]
    (tmp_path / "l.txt").write_bytes(b"\0".join(map(os.fsencode, [*names, names[0], str(photos / "0")])))
    predict_files(MODEL, [tmp_path / "l.txt", names[1]], tmp_path / "l.jsonl", quiet=True)
    rows = rows_of(tmp_path / "l.jsonl")
    assert [row["image"] for row in rows] == [*names, str(photos / "0")]
    assert "No such file" in rows[-2]["error"] and "Is a directory" in rows[-1]["error"]


def test_as_many_shards_as_one_likes(photos, tmp_path):
    """Their files, which may stand among the pictures, are told by their names: these were all listed first."""
    assert predict_files(MODEL, f"{photos}/0", tmp_path / "r.jsonl", shards=10**12, shard=3, quiet=True).images == 0
    name = "r-7-of-7.jsonl"  # of no shard
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / name).write_bytes(b"")
    options = {"shards": 7, "shard": shard_of(name, 7), "quiet": True}
    written = predict_files(MODEL, tmp_path / "more", tmp_path / "more" / "r.jsonl", **options)
    assert [os.path.basename(row["image"]) for row in rows_of(written.path)] == [name]


def test_arrays_and_masks(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((7, 3, 3), np.uint8))
    (tmp_path / "b.npz").write_bytes(b"no arrays")
    predict_files(MODEL, tmp_path, tmp_path / "r.jsonl", quiet=True)
    names = [f"{tmp_path}/a.npz/images/{i}" for i in range(7)]
    rows = by_name(rows_of(tmp_path / "r.jsonl"))
    assert [row["image"] for row in rows] == [*names, f"{tmp_path}/b.npz"] and "error" in rows[-1]
    row = {"top": [{"class": "road", "share": 0.75}], "mask": "iVBORw0="}
    model = LoadedModel(find("segmentation"), ("sky", "road"), lambda encoded, top: [row for _ in encoded], channels=1)
    for suffix in ("jsonl", "csv"):
        predict_files(model, tmp_path / "a.npz", tmp_path / f"m.{suffix}", top=1, quiet=True)
    assert rows_of(tmp_path / "m.jsonl")[3] == {"image": names[3], **row}
    assert (tmp_path / "m.csv").read_text().splitlines()[1] == f"{names[0]},,road,0.750000"


class Killed(BaseException):
    pass


@pytest.mark.parametrize("force", [False, True])
def test_a_kill_at_each_rename(photos, tmp_path, monkeypatch, force):
    monkeypatch.setattr(files.os, "fsync", lambda handle: None)  # for speed
    shutil.rmtree(photos / "0")
    shutil.rmtree(photos / "1")
    out, replace, kills = tmp_path / "r.jsonl", os.replace, 0
    if force:
        out.write_text("old\n")
    for after in (False, True):
        for number in range(8):
            left = iter(range(number + 1))

            def killed(a, b, left=left, number=number, after=after):
                last = next(left) == number
                if last and not after:
                    raise Killed
                replace(a, b)
                if last:
                    raise Killed

            monkeypatch.setattr(os, "replace", killed)
            try:
                predict_files(MODEL, photos, out, force=force, resume=not force, batch_size=2, quiet=True)
            except Killed:
                kills += 1
                if force and number < 5:
                    assert out.read_text() == "old\n"
            monkeypatch.setattr(os, "replace", replace)
            if number:  # the first file to be renamed is the record
                predict_files(MODEL, photos, out, resume=True, batch_size=2, quiet=True)
                assert by_name(rows_of(out)) == expected(photos)
                out.write_text("old\n") if force else out.unlink()
    assert kills == 14  # record, three parts, the whole, its name, the end
    assert len([n for n in os.listdir(tmp_path) if n.startswith(".") and not n.startswith(".tmp-")]) == 0


def test_sigterm_and_a_full_disk_keep_what_is_done(photos, tmp_path, monkeypatch):
    out, computed = tmp_path / "r.csv", []

    def stopped(encoded, top):
        computed.extend(encoded)
        if len(computed) == 20:
            os.kill(os.getpid(), signal.SIGTERM)
        return answer(encoded, top)

    model = LoadedModel(MODEL.task, CLASSES, stopped, channels=1)
    with pytest.raises(Interrupted, match="--resume continues") as caught:
        predict_files(model, photos, out, batch_size=1, quiet=True)
    assert caught.value.exit_code == 128 + signal.SIGTERM and not out.exists()
    with pytest.raises(RunError, match=r"begun .*r.csv: --resume"):
        predict_files(model, photos, out)
    with pytest.raises(RunError, match=r"other settings \(images, top\)"):
        predict_files(model, [photos, photos], out, resume=True, top=2)

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(KzooError, match="No space left on device"):
            predict_files(model, photos, out, resume=True, quiet=True)
    before = len(computed)
    predict_files(model, photos, out, resume=True, quiet=True)
    assert before > 19 and len(computed) - before < 44 - 15
    assert len({row[0] for row in csv.reader(io.StringIO(out.read_text("utf-8")))}) == 46  # with the header


def test_one_line_for_what_is_wrong(photos, tmp_path, monkeypatch, kzoo_command):
    out = tmp_path / "r.jsonl"
    for options, why in (
        ({"shards": 2}, "belong together"),
        ({"shards": 2, "shard": 2}, "0 to 1"),
        ({"resume": True, "force": True}, "one of them"),
        ({"top": 0}, "at least 1"),
    ):
        with pytest.raises(DataError, match=why):
            predict_files(MODEL, photos, out, **options)
    with pytest.raises(DataError, match=r"NAME\.jsonl or NAME\.csv"):
        predict_files(MODEL, photos, tmp_path / "r.json")
    for text in ("image", 'image,error\r\n"a'):  # no whole file of kzoo's
        (tmp_path / "cut.csv").write_text(text)
        with pytest.raises(RunError, match=r"cut\.csv can't be read .*: delete it"):
            predict_files(MODEL, photos, tmp_path / "cut.csv", resume=True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no files in"):
        predict_files(MODEL, tmp_path / "empty", out)
    (tmp_path / ".r.jsonl.parts").mkdir()
    with (
        hold_lock(tmp_path / ".r.jsonl.parts/.lock", on_busy=lambda: None),
        pytest.raises(RunError, match="in use by another kzoo process"),
    ):
        predict_files(MODEL, photos, out)
    assert not out.exists()

    monkeypatch.setattr("kzoo.evaluating.loading.load_model", lambda *args, **options: MODEL)
    monkeypatch.setattr(many, "load_model", lambda model: model)
    code, stdout, err = kzoo_command("predict", "m", photos, "--out", out, "--shards", "1", "--shard", "0", "--quiet")
    assert code == 1 and stdout == "" and "of 45 images could not be read; their rows say why." in err
    code, _, err = kzoo_command("predict", "m", photos, "--out", tmp_path / "r-0-of-1.jsonl")
    assert code == 1 and err.endswith("exists: --force (force=True) replaces it, or give another --out.\n")
    for args in (("--resume",), ("--out", tmp_path, "--shard", "0"), ("--out", out, "--json")):
        assert kzoo_command("predict", "m", photos, *args)[0] == 2


def test_an_iterator_is_read_as_it_is_asked_for(photos):
    asked = []

    def names():
        for i in range(40):
            asked.append(i)
            yield photos / f"{i % 3}/{i}.npy"

    rows = kzoo.predict(MODEL, names(), batch_size=4)
    assert not asked and next(rows)["image"].endswith("0.npy") and len(asked) == 4
    assert len(list(rows)) == 39


@pytest.mark.deep("2026-11-27")
def test_kill_9_of_3000_pictures(tmp_path, kzoo_command):
    export = processes.ROOT / "saved_models/lenet5"
    (tmp_path / "p").mkdir()
    for i in range(3000):
        Image.new("L", (28, 28), i % 256).save(tmp_path / f"p/{i}.png")
    arguments = ["predict", export, tmp_path / "p", "--out", tmp_path / "r.jsonl"]
    process = processes.started(*arguments)
    processes.wait_for((tmp_path / ".r.jsonl.parts/000001.jsonl").exists, process, seconds=400)
    process.kill()
    process.communicate()
    assert not (tmp_path / "r.jsonl").exists()
    code, _, err = kzoo_command(*arguments, "--resume", "--quiet")
    assert code == 0, err
    rows = rows_of(tmp_path / "r.jsonl")
    assert {row["image"] for row in rows} == {f"{tmp_path}/p/{i}.png" for i in range(3000)} and len(rows) == 3000
    first = by_name(rows)[:20]
    for ours, theirs in zip(first, kzoo.predict(export, [row["image"] for row in first]), strict=True):
        assert ours["top"][0] == pytest.approx(theirs["top"][0], abs=1e-5)  # the other process optimised its graphs
