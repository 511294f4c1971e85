"""Devices and processes: how they are asked for, and what a run of several of them leaves."""

import os
import socket
import subprocess
import sys
from importlib.util import find_spec

import numpy as np
import pytest
from support.processes import ROOT, command, wait_for

from kzoo import runs
from kzoo.distribution import Group, Together, first_node
from kzoo.errors import KzooError

JAX = {"KERAS_BACKEND": "jax", "TF_CPP_MIN_LOG_LEVEL": "3"}
CLUSTER = ("JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID", "JAX_NUM_PROCESSES", "SLURM_JOB_ID")


@pytest.fixture
def on_jax(monkeypatch):
    """What is asked before anything is computed: only the name of the backend."""
    monkeypatch.setattr("kzoo.distribution.backend", lambda: "jax")
    for name in CLUSTER:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


@pytest.mark.usefixtures("on_jax")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "devices must be a whole number of at least 1, got 0"),
        ({"coordinator": "host:1"}, "--coordinator needs --process i/N, too"),
        ({"process": "0/2"}, "--process needs --coordinator HOST:PORT, too"),
        ({"coordinator": "host", "process": "0/2"}, "The coordinator is HOST:PORT.*got 'host'"),
        ({"coordinator": "host:99999", "process": "0/2"}, "got 'host:99999'"),
        ({"coordinator": "host:1", "process": "2/2"}, "i from 0 to N - 1, such as 0/2; got '2/2'"),
        ({"coordinator": "host:1", "process": "first"}, "got 'first'"),
        ({"coordinator": "env"}, "neither JAX_COORDINATOR_ADDRESS.*are set: give --coordinator HOST:PORT"),
    ],
)
def test_what_can_not_be_meant_is_refused_in_one_line(options, message):
    with pytest.raises(KzooError, match=message) as e:
        Together(**options)
    assert "\n" not in str(e.value)


def test_on_tensorflow_one_line_says_how(kzoo_command, monkeypatch):
    monkeypatch.setattr("kzoo.distribution.backend", lambda: "tensorflow")
    code, _, err = kzoo_command("train", "mnist_softmax", "--devices", 2)
    assert code == 1 and err.startswith("Error: Several devices and processes are for JAX")
    assert "set KERAS_BACKEND=jax" in err and len(err.splitlines()) == 1


def test_what_clusters_set(on_jax):
    on_jax.setenv("SLURM_JOB_ID", "70001")
    for name, value in (("STEP_NODELIST", "gpu[007-009,12],big1"), ("PROCID", "3"), ("STEP_NUM_TASKS", "4")):
        on_jax.setenv(f"SLURM_{name}", value)
    assert Together(coordinator="env").found() == ("gpu007:61809", 3, 4)
    assert not Together(coordinator="env").first
    for name, value in zip(CLUSTER, ("job-0.pods:1234", "0", "8"), strict=False):
        on_jax.setenv(name, value)
    assert Together(coordinator="env").found() == ("job-0.pods:1234", 0, 8)
    assert [first_node(n) for n in ("n1", "n1,n2", "n[1,3]", "a1,b[2-3]")] == ["n1", "n1", "n1", "a1"]


def test_one_process_has_nobody_to_tell():
    one = Group()
    assert one.first and one.share(7) == 7 and one.told({"a": 1}) == {"a": 1}
    one.check_same({"a": 1}, runs.differences)
    with one.alone():
        pass


# --- processes ----------------------------------------------------------------------------------------------------

TRAINING = ("train", "mnist_softmax", "--data", "digits", "--batch-size", 100, "--precision", "float32")


@pytest.fixture
def address():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{s.getsockname()[1]}"


def process_of(address, i, *arguments, n=2):
    return subprocess.Popen(
        command(*arguments, "--coordinator", address, "--process", f"{i}/{n}"),
        cwd=ROOT,
        env={**os.environ, **JAX},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def processes(address, *arguments):
    return [process_of(address, i, *arguments) for i in range(2)]


def ended(started):
    """(exit codes, what each wrote)."""
    wrote = [p.communicate(timeout=900)[1] for p in started]
    return [p.returncode for p in started], wrote


def arrays_of(folder):
    return runs.load_checkpoint(folder / runs.CHECKPOINT)[0]


def epochs(folder):
    return len(runs.history_of(folder).get("epoch", ())) if (folder / runs.HISTORY).exists() else 0


@pytest.mark.skipif(find_spec("jax") is None, reason="needs jax")
@pytest.mark.deep("2026-11-27")
def test_two_processes_train_as_one_does_and_survive_the_end_of_either(tmp_path, address):
    whole = tmp_path / "whole"
    code, wrote = ended(processes(address, *TRAINING, "--epochs", 6, "--out", whole))
    assert code == [0, 0], wrote
    assert "2 devices in 2 processes" in wrote[0] and "epoch" not in wrote[1]

    alone = command(*TRAINING, "--epochs", 6, "--out", tmp_path / "one")
    subprocess.run(alone, cwd=ROOT, env={**os.environ, **JAX}, check=True)
    for key, array in arrays_of(tmp_path / "one").items():
        np.testing.assert_allclose(arrays_of(whole)[key], array, rtol=0, atol=1e-3, err_msg=key)

    out = tmp_path / "killed"
    for killed in (1, 0):
        resume = ("--resume",) if out.exists() else ()
        started = processes(address, *TRAINING, "--epochs", 200, "--out", out, *resume)
        done = epochs(out)
        wait_for(lambda n=done: epochs(out) > n, started[0], 600)
        started[killed].kill()
        code, wrote = ended(started)
        assert code[killed] == -9 and code[1 - killed] == 1
        line = wrote[1 - killed].splitlines()[-1]
        assert line.startswith(f"Error: Process {killed} of 2 ended before the training did")
        assert "start all processes again with --resume" in line and "Traceback" not in wrote[1 - killed]
    last = max(epochs(out), 6) + 3
    code, wrote = ended(processes(address, *TRAINING, "--epochs", last, "--out", out, "--resume"))
    assert code == [0, 0], wrote
    code, wrote = ended(processes(address, *TRAINING, "--epochs", last, "--out", whole, "--resume"))
    assert code == [0, 0], wrote
    for key, array in arrays_of(whole).items():
        np.testing.assert_array_equal(arrays_of(out)[key], array, err_msg=key)


@pytest.mark.skipif(find_spec("jax") is None, reason="needs jax")
@pytest.mark.deep("2026-11-27")
def test_processes_that_are_given_different_things_do_not_start(tmp_path, address):
    rest = ("--epochs", 1, "--out", tmp_path / "r")
    started = [process_of(address, i, *TRAINING, *rest, "--seed", i) for i in range(2)]
    code, wrote = ended(started)
    assert code == [1, 1] and "seed: the run has 0, this command 1" in wrote[1], wrote
    assert not (tmp_path / "r").exists()


FINETUNING = """
import sys
import numpy as np
import kzoo

kind, address, out = sys.argv[1:]
given = {"two devices": {"devices": 2}}
given |= {f"process {i}": {"coordinator": address, "process": f"{i}/2"} for i in range(2)}
rng, y = np.random.default_rng(0), np.arange(90) % 3
x = rng.integers(0, 150, (90, 32, 32, 3)) + (y[:, None, None, None] == np.arange(3)) * 60
run = kzoo.finetune(
    (x.astype("uint8"), y), "resnet20", unfreeze="all", epochs=1, out=out, precision="float32", **given.get(kind, {})
)
assert len(run.history["epoch"]) > 1  # a stage has trained
"""


@pytest.mark.skipif(find_spec("jax") is None, reason="needs jax")
@pytest.mark.deep("2026-11-27")
def test_fine_tuning_is_the_same_on_one_device_two_and_in_two_processes(tmp_path, address):
    """Up to rounding: which stages are kept, and the losses."""
    histories = {}
    for where, kinds in (("one", ["one device"]), ("two", ["two devices"]), ("both", ["process 0", "process 1"])):
        env = {**os.environ, **JAX}
        if where == "two":
            env["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"
        started = [
            subprocess.Popen(
                [sys.executable, "-c", FINETUNING, kind, address, tmp_path / where],
                cwd=ROOT,
                env=env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for kind in kinds
        ]
        code, wrote = ended(started)
        assert code == [0] * len(kinds), wrote
        histories[where] = runs.history_of(tmp_path / where)
    for where in ("two", "both"):
        assert histories[where]["phase"] == histories["one"]["phase"]
        for name in ("loss", "val_loss"):
            np.testing.assert_allclose(histories[where][name], histories["one"][name], atol=1e-3, err_msg=name)
    assert not [p for p in tmp_path.iterdir() if p.name not in ("one", "two", "both")]


NO_TENSORFLOW = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0].startswith("tensorflow"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
import numpy as np
import kzoo
from kzoo import runs

from kzoo.training.recipes import Recipe

rng = np.random.default_rng(0)
data = rng.integers(0, 256, (30, 28, 28, 1)).astype("uint8"), np.arange(30) % 3
plan = Recipe("short", "a test", epochs=1, batch_size=8, augment=(("flip", 0.5),))
run = kzoo.train("mnist_softmax", data, recipe=plan, val_fraction=0.0, devices=2, out=sys.argv[1])
assert run.config["devices"] == 2 and run.config["processes"] == 1
more = kzoo.train(data=data, out=sys.argv[1], resume=True, epochs=2, quiet=True)  # on one device
assert len(more.history["epoch"]) == 2
for options, message in (
    ({"devices": 3}, "--devices 3, and there are 2 (CPU)."),
    ({"devices": 2, "input_shape": (14, 14, 1)}, "by TensorFlow, which is not installed"),
):
    try:
        kzoo.train("mnist_softmax", data, epochs=1, batch_size=8, out=sys.argv[1] + "-2", **options)
    except kzoo.KzooError as e:
        assert message in str(e), str(e)
    else:
        raise AssertionError(message)
"""


@pytest.mark.skipif(find_spec("jax") is None, reason="needs jax")
def test_arrays_train_on_two_devices_and_go_on_on_one_without_tensorflow(tmp_path):
    env = {**os.environ, **JAX, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    env["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", NO_TENSORFLOW, tmp_path / "r"], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 devices in 1 process." in done.stderr
