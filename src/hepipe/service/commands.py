"""The commands of the command line that serve models, ask a server, and keep a client's keys."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from hepipe.errors import HepipeError

if TYPE_CHECKING:
    from hepipe.service.client import RemoteServer
    from hepipe.service.mailbox import MailboxServer

# Everything heavy is imported inside the commands, so that the help answers at once.

PASSPHRASE, TOKEN = "HEPIPE_PASSPHRASE", "HEPIPE_TOKEN"
"""Environment variables: arguments would show in the list of processes."""

Url = Annotated[str, typer.Option(help="https://..., http:// on this machine, or a mailbox: s3://..., file:///...")]
ModelName = Annotated[str | None, typer.Option("--model", help="By name; may be left out if there is only one.")]
SchemeName = Annotated[str, typer.Option("--scheme", help="paillier or ckks.")]
TokenFile = Annotated[Path | None, typer.Option(help=f"File with the server's token; else ${TOKEN}.")]
Authority = Annotated[Path | None, typer.Option(help="PEM file of a certificate authority of your own.")]
KeyFolder = Annotated[Path | None, typer.Option("--keys", help="Folder of the keys; default in your data folder.")]

keys = typer.Typer(no_args_is_help=True, help="A client's own keys, sealed with a passphrase.")


def serve(
    models: Annotated[Path, typer.Argument(help="Folder of bundles: hepipe export MODEL FOLDER/NAME.zip.")],
    state: Annotated[Path, typer.Option(help="Folder in which clients' public keys are kept.")] = Path("state"),
    host: Annotated[
        str, typer.Option(help="Address to listen on; beyond this machine TLS and tokens are needed.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8800,
    tokens: Annotated[Path | None, typer.Option(help="File of tokens: hepipe token NAME.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="PEM file of the certificate.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="PEM file of its key.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes that evaluate.")] = 2,
    rate: Annotated[float, typer.Option(min=0.001, help="Requests a second of one key.")] = 50.0,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Rows in all of one key and model; no limit by default.")
    ] = None,
    deadline: Annotated[float, typer.Option(min=1, help="Seconds that a prediction may take.")] = 60.0,
) -> None:
    """Serve bundles until stopped; SIGHUP reads the folder again, SIGTERM finishes what runs."""
    import logging

    with _needs_service():
        from hepipe.service.limits import Limits
        from hepipe.service.run import Address
        from hepipe.service.run import serve as run_server
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s")
    limits = Limits(workers=workers, rate=rate, rows=rows, deadline_s=deadline)
    run_server(models, state, Address(host, port, tls_cert, tls_key), tokens, limits, listening=_announce)


def token(
    name: Annotated[str, typer.Argument(help="Of the tenant.")],
    tokens: Annotated[Path, typer.Option(help="File of tokens, made if it is not there.")] = Path("tokens.json"),
    operator: Annotated[bool, typer.Option("--operator", help="May read the metrics.")] = False,
) -> None:
    """Make a token for a tenant of a server and show it, once: only its hash is kept."""
    with _needs_service():
        from hepipe.service.tenants import add_tenant
    typer.echo(add_tenant(tokens, name, operator))


def predict(
    data: Annotated[Path, typer.Argument(metavar="INPUT.csv", help="Rows with the model's columns.")],
    url: Url,
    model: ModelName = None,
    scheme: SchemeName = "ckks",
    out: Annotated[Path | None, typer.Option(help="CSV file for the predictions; default the terminal.")] = None,
    token_file: TokenFile = None,
    authority: Authority = None,
    key_folder: KeyFolder = None,
    policy: Annotated[str, typer.Option(help='"client" agrees to see what such a plan reveals.')] = "polynomial",
    deadline: Annotated[float, typer.Option(min=0, help="Seconds to wait for a reply.")] = 600,
) -> None:
    """Predict rows on a server that sees only ciphertexts; keys are made once and reused."""
    import pandas as pd

    with _needs_service():
        from hepipe.service.keyring import KeyRing
    remote = _remote(url, model, token_file, authority, policy, deadline)
    try:
        rows = pd.read_csv(data)
    except (OSError, ValueError) as error:
        raise HepipeError(f"{data} cannot be read: {error}") from error
    plan, ring = remote.plan(scheme), KeyRing(key_folder)
    plan.profile.checked(rows)  # before any key is made or sent
    client = remote.client(scheme, ring, _passphrase(confirm=not ring.has(plan.parameters)))
    found = pd.DataFrame({"prediction": list(remote.predict(client, rows, progress=out is not None))})
    typer.echo(f"you learn: {plan.reveals}; the server learns nothing", err=True)
    found.to_csv(out, index=False) if out else typer.echo(found.to_csv(index=False), nl=False)


@keys.command()
def new(
    url: Url,
    model: ModelName = None,
    scheme: SchemeName = "ckks",
    token_file: TokenFile = None,
    authority: Authority = None,
    key_folder: KeyFolder = None,
    policy: Annotated[str, typer.Option(help='"client" agrees to see what such a plan reveals.')] = "polynomial",
) -> None:
    """Make new keys for a model's parameters: the newest are the ones that are used."""
    with _needs_service():
        from hepipe.service.keyring import KeyRing
    plan = _remote(url, model, token_file, authority, policy).plan(scheme)
    ring = KeyRing(key_folder)
    client = ring.new(plan, _passphrase(confirm=True))
    _print(f"{client.public().key_id} in {ring.folder}")


@keys.command("list")
def list_keys(key_folder: KeyFolder = None) -> None:
    """Show the keys: id, scheme, security and file. Takes no passphrase."""
    from hepipe.service.keyring import KeyRing

    for path, bundle in KeyRing(key_folder).list():
        parameters = bundle.parameters
        security = "insecure" if parameters.insecure else f"{parameters.security_bits} bits"
        _print(f"{bundle.key_id}  {parameters.name:<8}  {security:<8}  {path}")


@keys.command()
def delete(
    key_id: Annotated[str, typer.Argument(help="Its id, or enough of its beginning.")],
    url: Annotated[str | None, typer.Option(help="A server that forgets the public half first.")] = None,
    token_file: TokenFile = None,
    authority: Authority = None,
    key_folder: KeyFolder = None,
) -> None:
    """Delete a key for good: what was encrypted under it can then be read by nobody."""
    from hepipe.service.keyring import KeyRing

    ring = KeyRing(key_folder)
    _, bundle = ring.find(key_id)
    if url is not None:
        with _needs_service():
            from hepipe.service.client import forget
        forget(url, bundle.key_id, _token(token_file), authority)
    ring.delete(bundle.key_id)


def _remote(
    url: str, model: str | None, token_file: Path | None, authority: Path | None, policy: str, deadline: float = 600
) -> RemoteServer | MailboxServer:
    """The server behind a URL: over HTTP, or through a mailbox for any other protocol."""
    if "://" in url and not url.startswith(("http://", "https://")):
        from hepipe.service.mailbox import MailboxServer

        if token_file or authority:
            raise HepipeError("a mailbox takes no token and no certificate: its store has credentials of its own")
        return MailboxServer(url, model, policy=policy, deadline_s=deadline)
    with _needs_service():
        from hepipe.service.client import RemoteServer
    return RemoteServer(url, model, token=_token(token_file), authority=authority, policy=policy, timeout_s=deadline)


def _token(token_file: Path | None) -> str | None:
    return token_file.read_text().strip() if token_file else os.environ.get(TOKEN)


def _passphrase(confirm: bool) -> str:
    given = os.environ.get(PASSPHRASE)
    if given is None:
        given = typer.prompt("passphrase of the keys", hide_input=True, confirmation_prompt=confirm, err=True)
    if len(given) < 12:
        raise HepipeError("a passphrase has at least 12 characters")
    return str(given)


@contextmanager
def _needs_service() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise HepipeError(f"{error}: to serve and to ask servers, pip install 'hepipe[service]'") from error


def _announce(url: str) -> None:
    _print(f"serving at {url}")


def _print(text: Any) -> None:
    Console().print(text, markup=False, highlight=False, soft_wrap=True)
