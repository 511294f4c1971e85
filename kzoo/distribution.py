"""Several devices and several processes: how they find each other, agree, and notice that one of them has ended.

On JAX only, with `keras.distribution.DataParallel`: every device has all variables and a share of each batch. With
several processes each runs the same program, and what changes variables or reads sums of all devices is done by all of
them in the same order.
"""

from __future__ import annotations

import atexit
import json
import os
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

from kzoo.errors import KzooError, RunError, first_line, printable
from kzoo.hardware import backend
from kzoo.progress import say

GRACE = 3.0  # seconds that a process has for an error of its own after another one ended


@dataclass(frozen=True)
class Group:
    """Who computes together.

    Attributes:
        devices: their number, of all processes.
        process, processes: the number of this process, from 0, and how many there are.
        layout: the `keras.distribution.DataParallel`; None for one device.
        leaving: functions that are called before this process is ended because another one was.
    """

    devices: int = 1
    process: int = 0
    processes: int = 1
    layout: Any = field(default=None, repr=False)
    leaving: list[Callable[[], object]] = field(default_factory=list, repr=False)

    @property
    def first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.process == 0

    def share(self, batch_size: int) -> int:
        """How many rows of a batch are this process'.

        Raises:
            RunError: The devices can't have equally many.
        """
        rest = batch_size % self.devices
        if rest:
            less, more = batch_size - rest, batch_size - rest + self.devices
            choice = f"{less} or {more}" if less else f"{more}"
            raise RunError(f"A batch of {batch_size} can't be shared equally by {self.devices} devices: use {choice}.")
        return batch_size // self.processes

    def alone(self) -> Any:
        """A context in which this process computes by itself, on one device."""
        if self.layout is None:
            return nullcontext()
        return _without_distribution()

    def told(self, value: Any) -> Any:
        """Give all processes what the first one has: JSON values. All of them must call it."""
        if self.processes == 1:
            return value
        import numpy as np
        from jax.experimental.multihost_utils import broadcast_one_to_all

        text = json.dumps(value).encode() if self.first else b""
        size = int(broadcast_one_to_all(np.int32(len(text))))
        sent = np.frombuffer(text.ljust(size), "uint8") if self.first else np.zeros(size, "uint8")
        return json.loads(np.asarray(broadcast_one_to_all(sent)).astype("uint8").tobytes())

    def told_arrays(self, arrays: Sequence[Any]) -> list[Any]:
        """Give all processes the arrays of the first one. All of them must call it, with arrays of the same shapes."""
        if self.processes == 1:
            return list(arrays)
        import numpy as np
        from jax.experimental.multihost_utils import broadcast_one_to_all

        return [np.asarray(a) for a in broadcast_one_to_all(list(arrays))]

    def check_same(self, mine: Mapping[str, Any], differences: Callable[[Mapping, Mapping, Any], list[str]]) -> None:
        """Refuse to start if the processes were given different things. All of them must call it.

        Args:
            mine: JSON values by name.
            differences: a function (these, the first process', names) that describes what differs.

        Raises:
            RunError: In every process; the one that differs says how.
        """
        if self.processes == 1:
            return
        import numpy as np
        from jax.experimental.multihost_utils import process_allgather

        wrong = differences(mine, self.told(mine), list(mine))
        bad = np.flatnonzero(np.asarray(process_allgather(np.int32(bool(wrong))))).tolist()
        if wrong:
            raise RunError(f"Process {self.process} differs from process 0 ('the run'): {'; '.join(wrong)}.")
        if bad:
            raise RunError(f"Process {bad[0]} differs from process 0, and says in what.")


@contextmanager
def _without_distribution():
    import keras

    kept = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(kept)


@dataclass(frozen=True)
class Together:
    """Which devices and processes to compute on, as `kzoo train` and `kzoo finetune` take it.

    Attributes:
        devices: of this process; None for one, and with a coordinator for all that there are.
        coordinator: HOST:PORT of process 0, which all can reach; "env" takes it, and `process`, from what a cluster
            sets: JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID (Kubeflow), else Slurm's variables.
        process: "i/N": this is number i, from 0, of N processes.
    """

    devices: int | None = None
    coordinator: str | None = None
    process: str | None = None

    def __post_init__(self):
        if self.devices is not None and (
            not isinstance(self.devices, int) or isinstance(self.devices, bool) or self.devices < 1
        ):
            raise KzooError(f"devices must be a whole number of at least 1, got {self.devices!r}.")
        if self.coordinator != "env" and (self.coordinator is None) != (self.process is None):
            given, missing = ("--process", "--coordinator HOST:PORT")[:: 1 if self.process else -1]
            missing = "--process i/N" if missing == "--process" else missing
            raise KzooError(f"{given.split()[0]} needs {missing}, too.")
        self.found()
        if (self.coordinator or (self.devices or 1) > 1) and backend() != "jax":
            raise KzooError(
                f"Several devices and processes are for JAX (keras.distribution.DataParallel), and Keras' backend is "
                f"{backend()}, whose fit in several processes is broken (Keras' issue 20585): set KERAS_BACKEND=jax."
            )

    def found(self) -> tuple[str, int, int] | None:
        """(HOST:PORT, this process' number, their number), or None for one process.

        Raises:
            KzooError: They can't be read.
        """
        if self.coordinator is None:
            return None
        address, process = self.coordinator, self.process
        if address == "env":
            address, process = _of_environment()
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise KzooError(f"The coordinator is HOST:PORT, such as 10.0.0.1:4000; got '{address}'.")
        match = re.fullmatch(r"(\d+)/(\d+)", str(process))
        if not match or int(match[1]) >= int(match[2]):
            raise KzooError(f"The process is i/N with i from 0 to N - 1, such as 0/2; got '{process}'.")
        return address, int(match[1]), int(match[2])

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        found = self.found()
        return found is None or found[1] == 0

    def join(self) -> None:
        """Find the other processes. It comes before anything is computed, best before Keras is imported.

        Raises:
            RunError: They don't answer, or something was computed before.
        """
        found = self.found()
        if found is None:
            return
        import jax

        address, number, count = found
        if jax.distributed.is_initialized():  # a second training of this process
            return
        say(f"Process {number} of {count}: waiting for the others at {address}.")
        try:
            jax.distributed.initialize(
                address, count, number, cluster_detection_method="deactivate", shutdown_timeout_seconds=30
            )
        except (RuntimeError, ValueError) as e:
            raise RunError(
                f"Process {number} of {count} can't meet the others at {address} ({first_line(e)}): start all of them "
                "with the same --coordinator, before anything is computed."
            ) from e

    @contextmanager
    def group(self) -> Iterator[Group]:
        """The devices, as a context in which Keras computes on all of them.

        Raises:
            RunError: There are fewer devices; or another process ended before this one.
        """
        self.join()
        if backend() != "jax" or (self.coordinator is None and (self.devices or 1) == 1):
            yield Group()
            return
        import jax
        import keras

        of_process = [
            sorted((d for d in jax.devices() if d.process_index == i), key=lambda d: d.id)
            for i in range(jax.process_count())
        ]
        fewest, most = min(map(len, of_process)), max(map(len, of_process))
        n = self.devices or fewest
        if self.devices is None and fewest != most:
            raise RunError(f"The processes have {fewest} to {most} devices: give their number with --devices.")
        if n > fewest:
            kind = of_process[0][0].platform.upper()
            raise RunError(f"--devices {n}, and there {'is' if fewest == 1 else 'are'} {fewest} ({kind}).")
        names = [f"{d.platform}:{d.id}" for devices in of_process for d in devices[:n]]
        layout = keras.distribution.DataParallel(devices=names, auto_shard_dataset=False)
        group = Group(len(names), jax.process_index(), jax.process_count(), layout)
        with layout.scope():
            if group.processes == 1:
                yield group
            else:
                with _watched(group, self.found()[0].rpartition(":")[0]):  # type: ignore[index]  # there is one
                    yield group


ALONE = Together()


def _of_environment():
    """(HOST:PORT, "i/N") as a cluster sets them."""
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_PROCESS_ID", "JAX_NUM_PROCESSES")
    values = [os.environ.get(name) for name in names]
    if all(values):
        return values[0], f"{values[1]}/{values[2]}"
    slurm = [os.environ.get(f"SLURM_{n}") for n in ("STEP_NODELIST", "PROCID", "STEP_NUM_TASKS", "JOB_ID")]
    if all(slurm):
        nodes, number, count, job = slurm
        return f"{first_node(nodes)}:{61440 + int(job) % 4096}", f"{number}/{count}"
    raise KzooError(
        f"--coordinator env: neither {', '.join(names)} nor the variables of a Slurm step (srun) are set: give "
        "--coordinator HOST:PORT and --process i/N."
    )


def first_node(nodes: str) -> str:
    """The first host of a list as Slurm writes it.

    Example:
        >>> first_node("gpu[007-009,12],big1"), first_node("n1,n2")
        ('gpu007', 'n1')
    """
    head, bracket, rest = nodes.partition("[")
    if not bracket or "," in head:
        return nodes.partition(",")[0]
    return head + re.split(r"[],-]", rest)[0]


# --- noticing that another process has ended ----------------------------------------------------------------------


class Lost(RunError):
    """Another process ended before this one."""


@contextmanager
def _watched(group, host):
    """Leave with one line when another process ends: by its error, else, as where devices wait for ever, by force.

    JAX itself ends a process about 100 seconds after another one was lost, and at once after process 0 was, with a
    trace of its own.
    """
    try:
        watch = _Watch(group, host)
    except (OSError, RuntimeError, ValueError) as e:
        atexit.register(_exit, 1)
        raise RunError(f"The processes can't reach each other at {host} ({first_line(e)}): start all again.") from e
    try:
        yield
        group.told(None)  # all have come here
        watch.close()
    except BaseException as e:
        # Without this, JAX would wait for the others at the end of the process.
        atexit.register(_exit, getattr(e, "exit_code", 1))
        if isinstance(e, Exception) and not isinstance(e, KzooError) and watch.lost.wait(GRACE):
            raise Lost(watch.message) from e
        raise
    finally:
        watch.closing = True


def _exit(code):
    os._exit(code)


class _Watch:
    """A connection between process 0 and each other one, whose end tells that a process has ended."""

    def __init__(self, group, host):
        self.group, self.lost, self.closing, self.message = group, threading.Event(), False, ""
        self.peers = {}
        server = None
        token = secrets.token_bytes(16)
        if group.first:
            server = socket.create_server(("", 0))
            server.settimeout(60)
        port, shared = group.told([server and server.getsockname()[1], token.hex()])
        if server:
            while len(self.peers) < group.processes - 1:
                peer, _ = server.accept()
                peer.settimeout(10)
                with suppress(OSError):
                    said = peer.recv(20, socket.MSG_WAITALL)
                    if said[:16] == token:  # anybody may call this port
                        self.peers[int.from_bytes(said[16:], "big")] = peer
            server.close()
        else:
            peer = socket.create_connection((host, port), timeout=60)
            peer.sendall(bytes.fromhex(shared) + group.process.to_bytes(4, "big"))
            self.peers[0] = peer
        for number, peer in self.peers.items():
            peer.settimeout(None)
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            threading.Thread(target=self._listen, args=(number, peer), daemon=True).start()

    def _listen(self, number, peer):
        try:
            said = peer.recv(1)
        except OSError:
            said = b""
        if said or self.closing:
            return
        self.message = (
            f"Process {number} of {self.group.processes} ended before the training did. The finished epochs are kept: "
            "start all processes again with --resume."
        )
        self.lost.set()
        if number:  # the main thread, unless it waits for a device, has an error of its own by now
            time.sleep(GRACE)
        if not self.closing:
            with suppress(OSError):
                os.write(2, f"Error: {printable(self.message)}\n".encode())
            for function in self.group.leaving:
                with suppress(Exception):
                    function()
            os._exit(1)

    def close(self):
        """Say that this process ends as it should."""
        self.closing = True
        for peer in self.peers.values():
            with suppress(OSError):
                peer.sendall(b".")
                peer.close()
