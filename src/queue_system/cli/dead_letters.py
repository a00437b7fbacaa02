"""`dead-letters`: list, show, retry or drop what failed for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Annotated, Any, Final, TypeAlias

import typer
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from queue_system.cli.exits import ExitCode
from queue_system.cli.help import PlainGroup
from queue_system.cli.options import Yes, duration, whole
from queue_system.cli.session import Session, command
from queue_system.cli.text import beginning, count, marked, moment, plain, pretty_json
from queue_system.client.dead_letters import DeadLetter, DeadLetterPage, Selection, list_flow
from queue_system.client.flow import run_flow
from queue_system.validation import refused

_REASON: Final = 500
_MOST_LISTED: Final = 1000


class Source(StrEnum):
    """The two lists of dead letters."""

    FAILURES = "failures"
    SYSTEM_ERRORS = "system_errors"


From: TypeAlias = Annotated[
    Source, typer.Option("--source", metavar="SOURCE", help="Which dead letters: failures or system_errors.")
]
Ids: TypeAlias = Annotated[list[str] | None, typer.Argument(metavar="LETTER_ID", help="Ids, as `list` shows them.")]
Age: TypeAlias = float | None


def _all(verb: str) -> Any:
    return typer.Option("--all", envvar=f"QUEUE_SYSTEM_DEAD_LETTERS_{verb}_ALL", help="All of the source.")


def _option(help_text: str, **settings: Any) -> Any:
    return typer.Option(rich_help_panel="Which", help=help_text, **settings)


@dataclass(frozen=True, slots=True)
class Which:
    """The options that choose dead letters."""

    queue: Annotated[str | None, _option("Of this queue, such as high:send_mail or send_mail.", metavar="NAME")] = None
    processor: Annotated[
        str | None, _option("Of this processor, such as shop.send_mail or send_mail.", metavar="NAME")
    ] = None
    error: Annotated[str | None, _option("With this in the error's type or text.", metavar="TEXT")] = None
    min_age: Annotated[Age, _option("Failed at least this long ago.", parser=duration, metavar="TIME")] = None
    max_age: Annotated[Age, _option("Failed at most this long ago.", parser=duration, metavar="TIME")] = None


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(cls=PlainGroup, no_args_is_help=True)
    app.add_typer(group, name="dead-letters", help="Look at what failed for good; run it again, or drop it.")
    command(group, "list")(list_dead_letter_page)
    command(group, "show")(show)
    command(group, "retry")(retry)
    command(group, "drop")(drop)


def list_dead_letter_page(
    session: Session,
    which: Which,
    *,
    source: From = Source.FAILURES,
    limit: Annotated[
        int, typer.Option(parser=whole(1, 1000), metavar="N", help="The largest number of dead letters.")
    ] = 20,
    cursor: Annotated[str, typer.Option(metavar="CURSOR", help="Continue where a previous list ended.")] = "",
) -> None:
    """List dead letters, the newest first."""
    page = session.manager.list_dead_letters(source.value, **asdict(which), limit=limit, cursor=cursor)
    document = {"letters": [_document(dead_letter) for dead_letter in page.letters], "cursor": page.cursor}
    session.output.emit(document, _list(page.letters, page.cursor))


def show(
    session: Session,
    letter_id: Annotated[str, typer.Argument(metavar="LETTER_ID", help="Its id, as `list` shows it.")],
    *,
    source: From = Source.FAILURES,
) -> None:
    """Show one dead letter with its entity. The exit code is 1 if there is none."""
    wanted = Selection(letter_ids=(letter_id,))
    page = run_flow(list_flow(session.config, source.value, wanted, 1), session.config.run)
    for dead_letter in page.letters:
        session.output.emit({**_document(dead_letter), "item": dead_letter.item}, _dead_letter(dead_letter))
        return
    session.output.error(_no_dead_letter(source, letter_id))
    raise typer.Exit(ExitCode.NEGATIVE)


def retry(
    session: Session,
    which: Which,
    letter_ids: Ids = None,
    *,
    source: From = Source.FAILURES,
    all_dead_letters: Annotated[bool, _all("RETRY")] = False,
) -> None:
    """Put dead letters back into their queues, their attempts reset. Name ids, a filter, or --all.

    The exit code is 1 if one that an id names is not put back.
    """
    _check_named(letter_ids, which, all_dead_letters=all_dead_letters)
    missing = _missing(session, source, letter_ids)
    done = session.output.follow(
        "retrying",
        lambda: session.manager.retry_dead_letters(source.value, letter_ids=letter_ids or None, **asdict(which)),
        lambda: _left(session, source),
    )
    session.output.emit({"retried": done}, plain(f"{count(done, 'operation')} will run again"))
    _end(session, source, letter_ids, missing, done)


def drop(
    session: Session,
    which: Which,
    letter_ids: Ids = None,
    *,
    source: From = Source.FAILURES,
    all_dead_letters: Annotated[bool, _all("DROP")] = False,
    yes: Yes = False,
) -> None:
    """Delete dead letters for good. Name ids, a filter, or --all. The exit code is 1 if a named one is gone."""
    _check_named(letter_ids, which, all_dead_letters=all_dead_letters)
    missing = _missing(session, source, letter_ids)
    if not yes:
        meant = session.manager.count_dead_letters(source.value, letter_ids=letter_ids or None, **asdict(which))
        question = f"Delete {count(meant, 'dead letter')} of the {_left(session, source):,} in {source.value} for good?"
        session.output.confirm(question, yes=False)
    done = session.output.follow(
        "dropping",
        lambda: session.manager.drop_dead_letters(source.value, letter_ids=letter_ids or None, **asdict(which)),
        lambda: _left(session, source),
    )
    session.output.emit({"dropped": done}, plain(f"dropped {count(done, 'dead letter')}"))
    _end(session, source, letter_ids, missing, done)


def _check_named(letter_ids: list[str] | None, which: Which, *, all_dead_letters: bool) -> None:
    """Let nobody retry or drop everything by leaving something out."""
    if not (letter_ids or all_dead_letters or any(value is not None for value in asdict(which).values())):
        raise refused("dead letters", "ids, a filter such as --queue, or --all", "none of them")


def _no_dead_letter(source: Source, letter_id: str) -> str:
    return f"{source.value} holds no dead letter {letter_id!r}; it may have been retried, dropped or trimmed"


def _missing(session: Session, source: Source, letter_ids: list[str] | None) -> list[str]:
    """Return those of the named ids that no dead letter has."""
    missing = dict.fromkeys(letter_ids or ())
    page = DeadLetterPage([], "")
    while missing:
        page = session.manager.list_dead_letters(
            source.value, letter_ids=list(missing), limit=_MOST_LISTED, cursor=page.cursor
        )
        for dead_letter in page.letters:
            missing.pop(dead_letter.letter_id, None)
        if not page.cursor:
            break
    return list(missing)


def _end(session: Session, source: Source, letter_ids: list[str] | None, missing: list[str], done: int) -> None:
    """Leave with 1 where an id was named and its dead letter is not among those that were dealt with."""
    for letter_id in missing:
        session.output.error(_no_dead_letter(source, letter_id))
    left = len(set(letter_ids or ())) - len(missing) - done
    if left > 0:
        session.output.error(f"{count(left, 'dead letter')} named by an id stayed; `dead-letters show ID` tells more")
    if missing or left > 0:
        raise typer.Exit(ExitCode.NEGATIVE)


def _left(session: Session, source: Source) -> int:
    status = session.manager.get_queue_status()
    return int(status[f"{session.config.queue_prefix}{source.value}"])


def _document(dead_letter: DeadLetter) -> dict[str, Any]:
    return {name: getattr(dead_letter, name) for name in dead_letter.__struct_fields__ if name not in {"item", "raw"}}


def _list(dead_letters: Sequence[DeadLetter], cursor: str) -> RenderableType:
    """Two lines each, so that ids and reasons have room at 80 columns."""
    if not dead_letters:
        return Text("no dead letters", "dim")
    lines: list[Text] = []
    for dead_letter in dead_letters:
        place = f"{dead_letter.priority}:{dead_letter.queue}" if dead_letter.queue else "-"
        error = ": ".join(part for part in (dead_letter.error_type, dead_letter.reason) if part)
        lines += [
            Text("  ").join((plain(dead_letter.letter_id, "bold"), plain(moment(dead_letter.failed_at)), plain(place))),
            Text("  ").join((Text(), plain(dead_letter.processor or "-"), plain(error[:_REASON], "yellow"))),
        ]
    if cursor:
        lines.append(plain(f"more: --cursor {cursor}", "dim"))
    for line in lines:
        line.no_wrap = True
        line.overflow = "ellipsis"
    return Group(*lines)


def _dead_letter(dead_letter: DeadLetter) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    table.add_row("dead letter", plain(dead_letter.letter_id, "bold"))
    for name in ("operation_id", "queue", "priority", "processor", "attempts", "error_type", "reason"):
        if (value := getattr(dead_letter, name)) is not None:
            table.add_row(name.removesuffix("_id").replace("_", " "), beginning(str(value)))
    if dead_letter.traceback:
        table.add_row("traceback", marked(dead_letter.traceback))
    table.add_row("failed", moment(dead_letter.failed_at))
    table.add_row("retryable", "yes" if dead_letter.retryable else "no")
    table.add_row(
        "item",
        beginning(dead_letter.raw.decode(errors="replace"))
        if dead_letter.item is None
        else pretty_json(dead_letter.item),
    )
    return table
