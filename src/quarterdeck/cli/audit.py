"""``quarterdeck audit``: what operators did, and the proof that nobody has changed what is told of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from quarterdeck.app.auditing import Verified, rows_of
from quarterdeck.app.auditing import verify as verified
from quarterdeck.app.notary import kept_seals, key_path, public_key, public_path, seals_path
from quarterdeck.cli.options import AsJson, KeyFile, Limit, Server, Store
from quarterdeck.cli.outcome import report
from quarterdeck.cli.places import place
from quarterdeck.cli.printing import emit, moment, note, say, table
from quarterdeck.cli.settings import settings
from quarterdeck.cli.storefile import Where, reading
from quarterdeck.core.audit import AuditRow
from quarterdeck.core.errors import OUTCOMES, Corrupt, UsageError

group = typer.Typer(help="What operators did: list, verify, export.", no_args_is_help=True)

Keys = Annotated[
    list[str] | None,
    typer.Option("--public-key", metavar="FILE", help="A key that is trusted; by default the one beside the store."),
]
Seals = Annotated[
    str | None, typer.Option("--seals", metavar="FILE", help="Seals that were kept elsewhere; by default those beside the store.")
]


@group.command()
def ls(
    action: Annotated[str, typer.Option("--action", metavar="WORD", help="Only what begins so: switch., approval., key.")] = "",
    target: Annotated[str, typer.Option("--target", metavar="NAME", help="Only about what begins so.")] = "",
    after: Annotated[int, typer.Option("--after", min=0, max=2**53 - 1, metavar="N", help="Only behind this row.")] = 0,
    limit: Limit = 50,
    store: Store = None,
    server: Server = None,
    key_file: KeyFile = None,
    as_json: AsJson = False,
) -> None:
    """List what operators did, the oldest first."""
    with place(store=store, server=server, key_file=key_file) as there:
        page = there.audit(after, limit, action=action, target=target)
    if as_json:
        emit(page)
        return
    lines = [(str(row.seq), moment(row.at_us), row.action, row.by, row.target, row.reason) for row in page.rows]
    table(("ROW", "WHEN", "ACTION", "BY", "TARGET", "REASON"), lines, empty="no operator has done anything yet")
    if page.next is not None:
        note(f"more: --after {page.next}")


@group.command()
def verify(
    public_keys: Keys = None,
    seals: Seals = None,
    file: Annotated[str | None, typer.Option("--file", metavar="FILE", help="An exported log, in place of a store.")] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> int:
    """Verify the chain and the seals of the log, offline. Exits 6 if it is not what was written."""
    found = check_log(None if file is not None else settings(None, store).store, file, public_keys, seals)
    if as_json:
        emit(found)
    else:
        show_verified(found)
    return OUTCOMES[Corrupt].exit_code if found.findings else 0


@group.command()
def export(store: Store = None, as_json: AsJson = False) -> None:
    """Write the log to stdout, a row a line, as `audit verify --file` reads it. Keep a copy where the store's owner cannot write."""
    with reading(settings(None, store).store) as insights:
        if as_json:
            emit({"rows": [(row.seq, row.body.decode(), row.hash.hex()) for row in rows_of(insights)]})
            return
        for row in rows_of(insights):
            sys.stdout.write(msgspec.json.encode((row.seq, row.body.decode(), row.hash.hex())).decode() + "\n")


def check_log(store: Where | None, file: str | None, keys: list[str] | None, seals: str | None) -> Verified:
    """Verify the log of a store or of a file, with the keys and seals that are named, or those beside the store."""
    beside = key_path(store) if isinstance(store, Path) else None
    if keys is None and beside is not None and public_path(beside).exists():
        keys = [str(public_path(beside))]
    kept = Path(seals) if seals is not None else seals_path(beside) if beside is not None else None
    trusted = [public_key(Path(name)) for name in keys or ()]
    held = kept_seals(kept) if kept is not None and kept.exists() else []
    if store is None:
        return verified(_exported(Path(file or "")), trusted, held)
    with reading(store) as insights:
        return verified(list(rows_of(insights)), trusted, held)


def show_verified(found: Verified) -> None:
    """Print what is known of a log."""
    say(
        f"{found.rows} rows of the audit log, {found.seals} seals, signed up to row {found.sealed_to}, {len(found.findings)} findings"
    )
    if found.unsealed:
        note(f"{found.unsealed} rows are behind the newest seal: if they were cut off, nothing here would show it")
    for finding in found.findings:
        report(finding.code, finding.message, {}, as_json=False)


def _exported(path: Path) -> list[AuditRow]:
    try:
        lines = path.read_bytes().splitlines()
        found = [msgspec.json.decode(line, type=tuple[int, str, str]) for line in lines]
        return [AuditRow(seq, body.encode(), bytes.fromhex(digest)) for seq, body, digest in found]
    except OSError as error:
        raise UsageError("input.missing", f"{path}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise Corrupt("audit.file", f"{path} is no exported audit log ({error})") from None
