"""The command ``hepipe``: run the notebooks, plan a model, serve it and ask for it, check the installation."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperCommand, TyperGroup

from hepipe.errors import HepipeError
from hepipe.service import commands, mailbox_commands

# Everything heavy is imported inside the commands, so that the help answers at once.

Out = Annotated[Path, typer.Option("--out", help="Folder of the results.")]


class _Commands(TyperGroup):
    """Commands whose expected errors end in one line and not in a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except HepipeError as error:
            Console(stderr=True).print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(1) from error


class _Pairs(TyperCommand):
    """A command that takes ``-p NAME VALUE`` as papermill does, besides ``-p NAME=VALUE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        joined: list[str] = []
        rest = iter(args)
        for word in rest:
            joined.append(word)
            if word in ("-p", "--parameter"):
                name = next(rest, "")
                joined.append(name if "=" in name else f"{name}={next(rest, '')}")
        return super().parse_args(ctx, joined)


app = typer.Typer(
    name="hepipe",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Machine learning on homomorphically encrypted data: Paillier and CKKS, compared fairly.",
)


def main() -> None:
    """Entry point of the command line."""
    app(prog_name="hepipe")


def _version(wanted: bool) -> None:
    if wanted:
        from hepipe import __version__

        typer.echo(f"hepipe {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@app.command(cls=_Pairs)
def run(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="[NOTEBOOKS]...", help="By name, number or path; all by default.")
    ] = None,
    profile: Annotated[str, typer.Option(help="smoke (seconds, insecure test keys), quick or full.")] = "quick",
    out: Out = Path("results"),
    parameter: Annotated[
        list[str] | None,
        typer.Option("-p", "--parameter", metavar="NAME VALUE", help="Set a notebook parameter; may be repeated."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Notebooks at a time; above 1 the timings disturb each other.")] = 1,
    notebooks: Annotated[Path, typer.Option(help="Folder of the notebooks.")] = Path("notebooks"),
) -> None:
    """Execute the notebooks, then show their closing tables and where the figures lie."""
    try:
        from hepipe.study.batch import plan_batch, run_batch
        from hepipe.study.batch_progress import progress, summary
    except ImportError as error:
        raise HepipeError(f"{error}: to run notebooks, pip install 'hepipe[notebooks]'") from error
    from hepipe.study.show import show_results

    console = Console()
    values = dict(text.split("=", 1) for text in parameter or [])
    batch = plan_batch(names or [], profile=profile, parameters=values, out=out, notebooks=notebooks)
    with progress(console) as watch:
        outcomes = run_batch(batch, parallel=jobs, watch=watch)
    show_results(console, [outcome.folder for outcome in outcomes])
    console.print(summary(outcomes), markup=False, highlight=False, soft_wrap=True)
    if any(outcome.error for outcome in outcomes):
        raise typer.Exit(1)


@app.command()
def table(
    profile: Annotated[str, typer.Argument(help="The profile whose results are shown.")] = "quick",
    out: Out = Path("results"),
) -> None:
    """Show the closing tables of an earlier run."""
    from hepipe.study.show import show_results

    if not show_results(Console(), sorted((out / profile).glob("*"))):
        raise HepipeError(f"no tables in {out / profile}: hepipe run --profile {profile} makes them")


@app.command()
def readme(out: Out = Path("results")) -> None:
    """Write the results and the support table of README.md anew, from the full profile and the code."""
    from hepipe.study.readme import update

    changed = update(Path("README.md"), out / "full")
    Console().print("README.md written" if changed else "README.md is up to date")


@app.command()
def plan(
    model: Annotated[
        str, typer.Option(help="salary-linear, chd-tree, ...: fitted now; an unknown name lists all.")
    ] = "chd-logistic",
    file: Annotated[
        Path | None,
        typer.Option(
            help='Instead, a JSON file: {"kind": "linear" or "logistic", "coef": [...], "intercept": number, '
            '"columns": [[name, low, high], ...]}, for raw inputs.'
        ),
    ] = None,
    schemes: Annotated[str, typer.Option(help="Separated by commas.")] = "paillier,ckks",
    samples: Annotated[int, typer.Option(min=1, help="Rows in one request.")] = 64,
    policy: Annotated[str, typer.Option(help="How non-linear functions are paid.")] = "polynomial",
    security_bits: Annotated[int, typer.Option(help="112 (Paillier only), 128, 192 or 256.")] = 128,
    precision_bits: Annotated[float | None, typer.Option(help="Wanted precision of a score.")] = None,
) -> None:
    """Say what an encrypted evaluation will take, before any key is made."""
    from hepipe.study.named_models import model_from_json, named_model
    from hepipe.study.plan import plan as planned
    from hepipe.study.show import show_plans

    chosen = named_model(model) if file is None else model_from_json(file)
    plans = [
        planned(chosen, name, samples, policy, precision_bits=precision_bits, security_bits=security_bits)
        for name in schemes.split(",")
    ]
    show_plans(Console(), f"{chosen.name}, {samples} rows", plans)


@app.command()
def export(
    model: Annotated[str, typer.Argument(help="A name that ``hepipe plan`` knows, or a JSON file of coefficients.")],
    out: Annotated[Path, typer.Argument(help="The bundle: a zip if it ends in .zip, else a folder.")],
    name: Annotated[str | None, typer.Option(help="Name to serve it under; default that of OUT.")] = None,
    model_version: Annotated[str, typer.Option(help="Version to serve it under.")] = "1",
    schemes: Annotated[str, typer.Option(help="What clients may use, separated by commas.")] = "paillier,ckks",
    samples: Annotated[int, typer.Option(min=1, help="The most rows in one request.")] = 64,
    policy: Annotated[str, typer.Option(help="How non-linear functions are paid.")] = "polynomial",
    security_bits: Annotated[int, typer.Option(help="112 (Paillier only), 128, 192 or 256.")] = 128,
    precision_bits: Annotated[float | None, typer.Option(help="Wanted precision of a score.")] = None,
) -> None:
    """Write a model as a bundle for ``hepipe serve``, after checking that every scheme can evaluate it."""
    from hepipe.models.bundle import Bundle, Settings, save
    from hepipe.study.named_models import model_from_json, named_model
    from hepipe.study.plan import plan as planned

    chosen = model_from_json(Path(model)) if model.endswith(".json") else named_model(model)
    settings = Settings(tuple(schemes.split(",")), policy, samples, precision_bits, security_bits)
    for scheme in settings.schemes:
        planned(chosen, scheme, samples, policy, precision_bits=precision_bits, security_bits=security_bits)
    try:
        digest = save(out, Bundle(chosen, name or out.stem, model_version, settings))
    except FileExistsError as error:
        raise HepipeError(str(error)) from error
    Console().print(f"{out}: {chosen.name}, sha256 {digest}", markup=False, highlight=False, soft_wrap=True)


app.command()(commands.serve)
app.command()(commands.predict)
app.command()(commands.token)
app.add_typer(commands.keys, name="keys")
app.command()(mailbox_commands.work)
app.add_typer(mailbox_commands.mailbox, name="mailbox")


@app.command()
def doctor() -> None:
    """Check the installation and the data, and name the command that mends what is wrong."""
    from hepipe.study.doctor import checks

    console, failing = Console(), 0
    for check in checks():
        mark, style = ("ok", "green") if check.ok else ("WRONG", "red") if check.needed else ("note", "yellow")
        console.print(f"[{style}]{mark:<6}[/]{check.name:<16}", end="")
        console.print(check.found, markup=False, highlight=False, soft_wrap=True)
        if not check.ok:
            console.print(f"      fix: {check.fix}", markup=False, highlight=False, soft_wrap=True)
        failing += check.fails
    if failing:
        raise typer.Exit(1)


if __name__ == "__main__":
    main()
