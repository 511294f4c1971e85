"""kzoo serve: an export over HTTP."""

import click

from kzoo.cli.options import load_keras, trust
from kzoo.errors import printable


@click.command("serve", epilog="Example: kzoo serve saved_models/mnist --port 8501")
@click.argument("folder", metavar="DIR")
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0 opens it to the network.")
@click.option("--port", type=click.IntRange(0, 65535), default=8501, show_default=True, help="0 takes a free one.")
@click.option("--name", help="The model's name in the paths; the export's by default.")
@click.option("--max-body", type=click.IntRange(1), default=16, show_default=True, help="Most MiB of a request.")
@click.option(
    "--max-pixels", type=click.IntRange(1), default=50, show_default=True, help="Most million pixels of a request."
)
@click.option(
    "--queue", type=click.IntRange(1), default=128, show_default=True, help="Most images that wait; then 503."
)
@click.option("--batch", type=click.IntRange(1), default=32, show_default=True, help="Most images computed at once.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1),
    default=30.0,
    show_default=True,
    help="Seconds to send a request, and to wait for an answer.",
)
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="A further name that the Host header may have, such as a proxy's; repeat it for several.",
)
@trust
def command(folder, *, host, port, allow_hosts, name, max_body, max_pixels, queue, batch, timeout, trust):
    """Serve the export DIR: TensorFlow Serving's REST paths, and a page at / to drop an image on.

    After SIGTERM or Ctrl-C no new images are taken; those that wait are answered, then the server stops.
    """
    from kzoo.exporting.reader import read_card

    card = read_card(folder)  # before TensorFlow is imported: a folder that is not an export is refused at once
    click.echo(printable(f"Loading {folder} ..."), err=True)
    load_keras()
    from kzoo.serving.app import serve
    from kzoo.serving.batcher import Limits

    def ready(host, port):
        at = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        where = f"{at}/v1/models/{name or card['name']}:predict"
        click.echo(printable(f"Serving {folder} at {at} ({where}). Ctrl-C stops."), err=True)

    limits = Limits(body=max_body << 20, pixels=max_pixels * 10**6, queue=queue, batch=batch, timeout=timeout)
    served = serve(
        folder, host=host, port=port, name=name, limits=limits, allow_hosts=allow_hosts, trust=trust, ready=ready
    )
    click.echo(f"Stopped after {served['images']:,} images in {served['batches']:,} batches.", err=True)
