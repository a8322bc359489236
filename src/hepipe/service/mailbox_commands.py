"""The commands of the command line that work on a mailbox and clean it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# Everything heavy is imported inside the commands, so that the help answers at once.

BoxUrl = Annotated[
    str, typer.Argument(metavar="URL", help="file:///FOLDER or s3://BUCKET/PREFIX; credentials from the environment.")
]

mailbox = typer.Typer(no_args_is_help=True, help="Predictions through an object store.")


def work(
    url: BoxUrl,
    models: Annotated[Path, typer.Option(help="Folder of bundles: hepipe export MODEL FOLDER/NAME.zip.")],
    lease: Annotated[float, typer.Option(min=1, help="Seconds without a sign of life until another takes over.")] = 30,
    answer: Annotated[float, typer.Option(min=1, help="Hours that a prediction waits for its key holder.")] = 24,
    waiting: Annotated[int, typer.Option(min=1, help="Predictions that may wait for their key holders at once.")] = 64,
) -> None:
    """Answer the requests in a mailbox until stopped; SIGTERM finishes what is computed. Several may work on one."""
    import logging
    import signal

    from hepipe.service.mailbox_rounds import Waiting
    from hepipe.service.mailbox_worker import MailboxWorker

    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
    worker = MailboxWorker(url, models, Waiting(lease_s=lease, answer_s=3600 * answer, jobs=waiting))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: worker.stop())
    typer.echo(f"working on {url}")
    worker.run()


@mailbox.command()
def clean(
    url: BoxUrl,
    older_than: Annotated[float, typer.Option(min=0, help="Hours since anybody touched it.")] = 168,
) -> None:
    """Delete requests, rounds and replies that nobody came back for; keys and models stay. Workers do so every hour."""
    from hepipe.service.mailbox_store import Store
    from hepipe.service.mailbox_worker import clean as cleaned

    typer.echo(f"{cleaned(Store(url), 3600 * older_than)} objects deleted")
