"""A small HTTP server for one machine: TensorFlow Serving's REST paths, and a page to drop an image on.

It runs on uvicorn and Starlette: they parse HTTP (h11 refuses wrong and duplicate lengths), and leave bodies to be read
piece by piece, so that sizes and times are limited here. Images of all requests wait in one bounded queue; two threads
classify them in batches, so that no slow client blocks the model.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import gc
import html
import ipaddress
import json
import math
import os
import signal
import socket
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kzoo.errors import ExportError, first_line, printable
from kzoo.exporting.reader import Export, multiply_adds
from kzoo.files import finite
from kzoo.hardware import two_at_once
from kzoo.progress import say
from kzoo.serving.batcher import SHORT, Batcher, Limits, Refused, no_room
from kzoo.serving.requests import body_of, check_pixels, form_image, images_of, reading
from kzoo.tasks import find
from kzoo.tasks.task import NOT_FINITE

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

PAGE = Path(__file__).with_name("page.html")


def json_classifier(export: Export) -> Callable[[list[bytes]], list[dict]]:
    """A function of encoded images that gives a dict of JSON values for each, as TensorFlow Serving writes them."""

    def classify(encoded):
        found = export.run(encoded)
        if export.task.dense:  # numbers for each pixel are no answer to send as text
            del found[export.task.output]
        for name in export.task.pictures:
            found[name] = np.array([base64.b64encode(file) for file in found[name]])
        columns = {name: _json_values(values) for name, values in found.items()}
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        bad = [~np.isfinite(v.reshape(len(v), -1)).all(1) for v in found.values() if v.dtype.kind == "f"]
        for i in np.flatnonzero(np.any(bad, axis=0)):  # JSON has no NaN
            rows[i] = finite(rows[i])
            rows[i]["error"] = rows[i].get("error") or NOT_FINITE
        return rows

    return classify


def _json_values(array):
    """A list of an array's rows. Texts, which are bytes, are decoded; of float32 the nine digits stay that tell it."""
    if array.dtype.kind in "OS":
        array = np.array([text.decode("utf-8", "replace") for text in array.ravel()], object).reshape(array.shape)
    if array.dtype == np.float32:  # as float64 they have seventeen, which take half as long again to write
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            array = array.astype("float64")
            scale = 10.0 ** (8 - np.floor(np.log10(np.abs(array))))
            array = np.where((array != 0) & np.isfinite(array), np.rint(array * scale) / scale, array)
    return array.tolist()


def hosts_of(host: str) -> set[str]:
    """The names by which a server that listens on an address may be called; "*" for any address, but no name.

    A web page of an attacker can have its own name lead to this machine (DNS rebinding), and then read answers as if
    they were its own; the request carries that name.
    """
    local = {"localhost", "127.0.0.1", "::1"}
    if host in ("0.0.0.0", "::", ""):
        return {"*", *local, socket.gethostname().lower(), socket.getfqdn().lower()}
    address = _address(host)
    return {host.lower(), *(local if host == "localhost" or (address and address.is_loopback) else ())}


def _address(text):
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def host_name(header: str) -> str:
    """The name in a Host header, without the port and brackets.

    Example:
        >>> host_name("[::1]:8501"), host_name("Localhost:80")
        ('::1', 'localhost')
    """
    name = header.strip().lower()
    if name.startswith("["):
        return name[1:].partition("]")[0]
    return name.partition(":")[0]


def refusal(scope: dict, hosts: set[str], allowed: Collection[str] = ()) -> tuple[int, str] | None:
    """(status, reason) for a request that is not to be read, by its headers; else None.

    Refused are another Host than those that the server listens on, a POST from a page of another origin, and a body of
    two lengths, which a proxy in front might read as two requests.

    Args:
        scope: of an ASGI request.
        hosts: of `hosts_of`.
        allowed: further names, of the server and of origins.
    """
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1"))
    if "transfer-encoding" in found and "content-length" in found:
        return 400, "The request has a Content-Length and a Transfer-Encoding; it must have one."
    host = (found.get("host") or [""])[0]
    name = host_name(host)
    if (
        scope["path"] != "/healthz"
        and host
        and name not in {*hosts, *allowed}
        and not ("*" in hosts and _address(name))
    ):
        return 403, f"This server does not answer for the host {name[:80]!r}: start it with --allow-host {name[:80]}."
    if scope["method"] not in ("GET", "HEAD"):
        origin = (found.get("origin") or [""])[0].strip().lower()
        site = (found.get("sec-fetch-site") or [""])[0].strip().lower()
        at = origin.partition("://")[2]
        foreign = at != host.strip().lower() if origin else site in ("cross-site", "same-site")
        if foreign and not (at and host_name(at) in allowed):
            return 403, "A page of another origin may not post to this server."
    return None


def guarded(application: Callable, hosts: set[str], allowed: Collection[str] = ()) -> Callable:
    """An ASGI application that answers what `refusal` refuses, and gives the rest to another one."""
    from starlette.responses import JSONResponse

    async def guard(scope, receive, send):
        refused = refusal(scope, hosts, allowed) if scope["type"] == "http" else None
        if refused:
            status, reason = refused
            await JSONResponse({"error": reason}, status, headers={"Connection": "close"})(scope, receive, send)
        else:
            await application(scope, receive, send)

    return guard


class Server:
    """The routes of the HTTP server, and what they share.

    Args:
        classify: a function of a list of encoded images that gives a dict of JSON values for each.
        name: of the model, in the paths.
        card: the export's card.
        limits: what the server accepts.
        allow_hosts: names that the Host header may have, besides those of the address.
        outputs: what an answer has, for /metadata.
    """

    def __init__(
        self,
        classify: Callable[[list[bytes]], list[dict]],
        name: str,
        card: dict,
        limits: Limits,
        allow_hosts: Sequence[str] = (),
        outputs: Sequence[str] = ("labels", "probabilities", "logits", "error"),
    ):
        allow_hosts = [allow_hosts] if isinstance(allow_hosts, str) else allow_hosts
        self.allow_hosts = {host_name(name) if name.count(":") < 2 else name.lower() for name in allow_hosts}
        self.name, self.card, self.limits, self.outputs = name, card, limits, outputs
        self.classify = classify
        self.batcher: Batcher | None = None
        self.ready = False  # also False once the server was told to stop: load balancers ask before they send more
        self.held = 0  # bytes of bodies that are not answered yet
        self.http: uvicorn.Server | None = None  # that runs it

    def application(self) -> Starlette:
        """The Starlette application; while it runs, a task classifies what waits."""
        from starlette.applications import Starlette
        from starlette.routing import Route

        @asynccontextmanager
        async def lifespan(application):
            self.batcher = Batcher(self.classify, self.limits)
            task = asyncio.create_task(self.batcher.run())
            self.ready = True
            yield
            self.ready = False
            task.cancel()
            self.batcher.threads.shutdown(wait=True)

        paths = "/v1/models/{name}"
        return Starlette(
            routes=[
                Route(paths + ":predict", self.predict, methods=["POST"]),
                Route("/", self.page),
                Route("/healthz", self.health),
                Route(paths + "/versions/1:predict", self.predict, methods=["POST"]),
                Route(paths + "/metadata", self.metadata),
                Route(paths + "/versions/1/metadata", self.metadata),
                Route(paths + "/versions/1", self.status),
                Route(paths, self.status),
                Route("/classify", self.one, methods=["POST"]),
            ],
            lifespan=lifespan,
        )

    def _named(self, request):
        if request.path_params.get("name", self.name) != self.name:
            raise Refused(404, f"There is no model '{request.path_params['name'][:80]}'; this one is '{self.name}'.")

    async def _answers(self, images, pixels):
        """The rows of a request's images."""
        futures = self.batcher.submit(images, pixels)
        try:
            return await asyncio.wait_for(asyncio.gather(*futures), self.limits.timeout)
        except asyncio.TimeoutError:
            raise Refused(503, f"No answer within {self.limits.timeout:g} s; try again.") from None
        finally:
            for future in futures:  # also when the client disconnected: nobody waits for these
                if not future.done():
                    future.cancel()

    async def _answered(self, request, work):
        """The JSON response with what work() gives, or with the status and the reason of `Refused`."""
        from starlette.requests import ClientDisconnect
        from starlette.responses import JSONResponse, Response

        request.state.held = 0
        try:
            self._named(request)
            return JSONResponse(await work())
        except Refused as e:
            status, reason = e.args
            more = {"Retry-After": "1"} if status == 503 else {}
            if status in (408, 413):
                more["Connection"] = "close"  # the rest of the body is not read
            return JSONResponse({"error": reason}, status, headers=more)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as e:
            if not no_room(e):
                raise
            say(f"Error: a request found too little memory ({first_line(e)}).")
            return JSONResponse({"error": SHORT}, 503, headers={"Retry-After": "1"})
        finally:
            self.held -= request.state.held

    async def predict(self, request: Request) -> Response:
        """POST :predict, as TensorFlow Serving."""

        async def work():
            body = await body_of(request, self)

            def read():
                images, columns = images_of(body, self.limits)
                return images, check_pixels(images, self.limits), columns

            images, pixels, columns = await reading(read, body)
            rows = await self._answers(images, pixels)
            if len(rows) == 1 and rows[0].get("error"):  # of several, the others are answered
                raise Refused(422, f"The image {rows[0]['error']}.")
            if columns:
                return {"outputs": {name: [row[name] for row in rows] for name in rows[0]}}
            return {"predictions": rows}

        return await self._answered(request, work)

    async def one(self, request: Request) -> Response:
        """POST /classify: the body is an image, or a form with one; 422 if it can't be read."""

        async def work():
            data = form_image(await body_of(request, self), request.headers.get("content-type", ""))
            pixels = await reading(lambda: check_pixels([data], self.limits), data)
            row = (await self._answers([data], pixels))[0]
            if row["error"]:
                raise Refused(422, f"The image {row['error']}.")
            return row

        return await self._answered(request, work)

    async def status(self, request: Request) -> Response:
        """GET the model's status, as TensorFlow Serving."""

        async def work():
            state = "AVAILABLE" if self.ready else "UNLOADING"
            return {
                "model_version_status": [
                    {"version": "1", "state": state, "status": {"error_code": "OK", "error_message": ""}}
                ]
            }

        return await self._answered(request, work)

    async def metadata(self, request: Request) -> Response:
        """GET /metadata, as TensorFlow Serving, with the export's card."""

        async def work():
            signature = {"inputs": {"image": {"dtype": "DT_STRING"}}, "outputs": {n: {} for n in self.outputs}}
            return {
                "model_spec": {"name": self.name, "signature_name": "", "version": "1"},
                "metadata": {
                    "signature_def": {"signature_def": {"serving_default": signature}},
                    "card": {k: v for k, v in self.card.items() if k not in ("files", "training")},
                },
            }

        return await self._answered(request, work)

    async def health(self, request: Request) -> Response:
        """GET /healthz: 200 while requests are accepted, else 503."""
        from starlette.responses import PlainTextResponse

        return PlainTextResponse("ok" if self.ready else "stopping", 200 if self.ready else 503)

    async def page(self, request: Request) -> Response:
        """GET /: a page to drop an image on; its policy lets it load nothing from elsewhere."""
        from starlette.responses import HTMLResponse

        inline = "style-src 'unsafe-inline'; script-src 'unsafe-inline'"
        policy = f"default-src 'none'; {inline}; connect-src 'self'; img-src blob:"
        # For the colours of a mask, whose numbers are those of the classes.
        classes = self.card.get("classes", []) if find(self.card.get("task", "classification")).dense else []
        text = PAGE.read_text("utf-8").replace("{{name}}", html.escape(printable(self.name)))
        text = text.replace("{{classes}}", html.escape(json.dumps(classes)))
        return HTMLResponse(text, headers={"Content-Security-Policy": policy})


def serve(
    folder: str | os.PathLike,
    *,
    host: str = "127.0.0.1",
    port: int = 8501,
    name: str | None = None,
    limits: Limits | None = None,
    allow_hosts: Sequence[str] = (),
    trust: bool = False,
    ready: Callable[[str, int], Any] | None = None,
) -> dict:
    """Serve an export over HTTP until SIGTERM or Ctrl-C, then answer what is waiting and return.

    Args:
        folder: what `kzoo.export` wrote; it is read once, so that a folder replaced meanwhile changes nothing.
        host: the address to listen on; "0.0.0.0" opens it to the network.
        port: 0 chooses a free one.
        name: of the model in the paths; None: the export's.
        limits: what is accepted; None: the defaults of `Limits`.
        allow_hosts: further names that the Host header may have, such as that of a proxy; the address that is listened
            on, and localhost for this machine's own, always may.
        trust: run a graph of any operations, also such as kzoo writes none of.
        ready: called with (host, port) once requests are accepted.

    Returns:
        {"seconds", "images", "batches"} of what was served.

    Raises:
        ExportError: the folder is not an export, the server's packages are missing, or the port is taken.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as e:
        raise ExportError(f"Serving needs {e.name}: pip install 'kzoo[serve]'.") from e
    two_at_once(multiply_adds(folder))
    export = Export(folder, trust)
    classify = json_classifier(export)
    outputs = tuple(classify([b""])[0])  # compiles
    server = Server(classify, name or export.card["name"], export.card, limits or Limits(), allow_hosts, outputs)
    # TensorFlow's objects live as long as the server: to go through all of them in each full garbage collection took a
    # tenth of its time.
    gc.collect()
    gc.freeze()
    try:
        return run(server, host, port, ready)
    finally:
        gc.unfreeze()


def _protocol(limits):
    """uvicorn's HTTP/1.1 protocol, which also closes the connection of a client that takes too long.

    That is: to send the headers of its first or any later request, to send the rest of a body that nobody waits for, or
    to receive its answer.
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        def connection_made(self, transport):
            super().connection_made(transport)
            self.began = self.loop.time()
            self.deadline = self.loop.call_later(limits.timeout, self._late)

        def on_response_complete(self):
            super().on_response_complete()
            self.deadline.cancel()
            self.began = self.loop.time()
            self.deadline = self.loop.call_later(limits.timeout, self._late)

        def _late(self):
            if self.transport.is_closing():
                return
            if self.cycle is None or self.cycle.response_complete:  # no request has begun, or not to its end
                self.transport.close()
            elif self.loop.time() - self.began > 4 * limits.timeout:  # a body and an answer take two at most
                self.transport.abort()
            else:
                self.deadline = self.loop.call_later(limits.timeout, self._late)

        def connection_lost(self, exc):
            self.deadline.cancel()
            super().connection_lost(exc)

    return Protocol


def run(server: Server, host: str, port: int, ready: Callable[[str, int], Any] | None = None) -> dict:
    """Answer requests to a Server until it is told to stop.

    Args:
        server: the routes.
        host, port, ready: as in `serve`.

    Returns:
        {"seconds", "images", "batches"} of what was served.

    Raises:
        ExportError: the port is taken.
    """
    import threading

    import uvicorn

    limits = server.limits
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With its protocol named: of such sockets only does asyncio send small packets at once. Otherwise the body of an
    # answer waits for the client to acknowledge the headers, which clients put off for 40 ms.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as e:
        listening.close()
        other = "--port" if e.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        raise ExportError(f"Can't listen on {host}:{port}: {e.strerror or e}. Choose another {other}.") from e

    class Http(uvicorn.Server):
        """On a signal: not ready, no new connections; what waits is answered, then the server ends."""

        def handle_exit(self, sig, frame):
            server.ready = False
            super().handle_exit(sig, frame)

        async def startup(self, sockets=None):
            await super().startup(sockets)
            if ready and self.started:
                ready(*listening.getsockname()[:2])

        @contextmanager
        def capture_signals(self):
            """As uvicorn's, which raises the signals again afterwards: the exit code would be that of the signal."""
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            before = {s: signal.signal(s, self.handle_exit) for s in (signal.SIGTERM, signal.SIGINT)}
            try:
                yield
            finally:
                for s, handler in before.items():
                    signal.signal(s, handler)

    config = uvicorn.Config(
        guarded(server.application(), hosts_of(host), server.allow_hosts),
        http=_protocol(limits),
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=max(1, math.ceil(limits.timeout)),
        h11_max_incomplete_event_size=32 << 10,
    )
    server.http = http = Http(config)
    began = time.monotonic()
    with listening:
        http.run(sockets=[listening])
    batcher = server.batcher
    assert batcher is not None, "it exists from the server's start"
    return {"seconds": time.monotonic() - began, "images": batcher.images, "batches": batcher.batches}
