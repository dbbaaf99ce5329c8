"""`potluck deploy FILE.py`: functions that others find by name, for as long as they are deployed."""

from __future__ import annotations

import click

from potluck.cli import options
from potluck.cli.find import find_app
from potluck.cli.options import written_for
from potluck.cli.show import as_json, named, print_json
from potluck.wire.apps import AppFacts, NamedFunction

NO_GATEWAY = 'web requests, but the setting `gateway` of this node is "none"'


@click.command()
@written_for
@click.argument("target", metavar="FILE.py[::APP]", type=click.Path())
@click.option("--name", default="", help="Deploy under this name instead of the app's own.")
@click.option("--tag", default="", help="A word for this version, such as a git hash.")
@click.option("--comment", default="", help="A line for the history.")
@options.strategy
@click.option("-q", "--quiet", is_flag=True, help="No progress line, and nothing said when it went well.")
@click.option("--build-on", metavar="PEER", default="", help="Have PEER build the images.")
@as_json
def deploy(
    target: str, name: str, tag: str, comment: str, strategy: str, quiet: bool, build_on: str, as_json: bool
) -> None:
    """Record all functions and classes of an app on this node, in place of what was deployed under its name.

    What is in use is warmed up first, so that no call and no request is lost; if it cannot start, nothing changes.

    Other programs of yours find them with `Function.from_name` and `Cls.from_name`, also after a restart of the node,
    until `potluck app stop`.
    """
    from potluck.deploy import Note
    from potluck.deploy import deploy as record

    note = Note(tag, comment, strategy)
    facts = record(find_app(target), name=name, show_progress=False if quiet else None, build_on=build_on, note=note)
    if as_json:
        urls = dict(facts.urls)
        functions = [_facts(each) | ({"url": urls[each.name]} if each.name in urls else {}) for each in facts.functions]
        print_json({"app": facts.app, "version": facts.version, "functions": functions})
    elif not quiet:
        _tell(facts)


def _facts(function: NamedFunction) -> dict[str, object]:
    """Without the spec, which holds the values of secrets."""
    return {
        "name": function.name,
        "image": function.spec.image,
        "methods": [named(each) for each in function.methods],
    }


def _tell(facts: AppFacts) -> None:
    click.echo(f"{facts.app} is deployed, version {facts.version}:")
    urls = dict(facts.urls)
    for function in facts.functions:
        if function.spec.web:
            click.echo(f"  {function.name}  ←  {urls.get(function.name, NO_GATEWAY)}")
            continue
        call = f'Function.from_name("{facts.app}", "{function.name}")'
        if function.methods:
            call = f'Cls.from_name("{facts.app}", "{function.name}")'
        methods = "".join(f" .{each.name}" for each in function.methods)
        click.echo(f"  {function.name}{methods}  ←  potluck.{call}")
