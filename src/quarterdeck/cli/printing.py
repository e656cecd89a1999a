"""What commands print: aligned tables, times, safe text, JSON. Plain text everywhere, so that it can be piped.

>>> ago(1_000_000, now_us=3 * 3_600_000_000), ago(90_000_000, now_us=0)
('3 h ago', 'in 90 s')
>>> safe("a\\x1b[31mb")
'a\\\\x1b[31mb'
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import msgspec

from quarterdeck.client.shapes import RunDetail

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN_EVERY_S = 0.1
_UNITS = ((172_800, 86_400, "d"), (7_200, 3_600, "h"), (120, 60, "min"), (0, 1, "s"))


def safe(text: str, *, lines: bool = False) -> str:
    """Text from anywhere with everything unprintable escaped, so that it cannot steer a terminal; ``lines`` keeps line ends."""
    if text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(sign if sign.isprintable() or sign in kept else sign.encode("unicode_escape").decode() for sign in text)


def moment(at_us: int) -> str:
    """A time as UTC ISO 8601, to the second.

    >>> moment(1_700_000_000_000_000)
    '2023-11-14T22:13:20Z'
    """
    return (_EPOCH + timedelta(microseconds=at_us)).strftime("%Y-%m-%dT%H:%M:%SZ")


def ago(at_us: int, now_us: int) -> str:
    """How far a time is from now, in one unit: ``in 3 h``, ``5 min ago``."""
    distance_s = round((at_us - now_us) / 1e6)
    for least, unit, name in _UNITS:
        if abs(distance_s) >= least:
            shown = f"{round(abs(distance_s) / unit)} {name}"
            return f"in {shown}" if distance_s > 0 else f"{shown} ago" if distance_s < 0 else "now"
    return "now"


def dollars(amount_microusd: int) -> str:
    """Money for people; never rounded away.

    >>> dollars(1_250_000), dollars(37)
    ('$1.25', '$0.000037')
    """
    whole, part = divmod(abs(amount_microusd), 1_000_000)
    sign = "-" if amount_microusd < 0 else ""
    return f"{sign}${whole}.{f'{part:06d}'.rstrip('0').ljust(2, '0')}"


def say(text: str = "") -> None:
    """Print one line of result, at once."""
    print(text, flush=True)


def note(text: str) -> None:
    """Print one line about the result, to stderr."""
    print(text, file=sys.stderr, flush=True)


def note_admission(run: RunDetail) -> None:
    """Say so, if a run does not start at once, or goes by another route than was asked for."""
    if run.admission == "elsewhere":
        note(f"it goes by route {safe(run.route)} instead of {safe(run.requested_route)}: {safe(run.admission_code)}")
    elif run.admission == "wait":
        note(f"it waits: {safe(run.admission_code)}")


def emit(value: object) -> None:
    """Print one JSON document on one line, at once. Bytes are hexadecimal, keys in a fixed order."""
    built = msgspec.to_builtins(value, enc_hook=str, builtin_types=(bytes,))
    say(msgspec.json.encode(_hexed(built), order="deterministic").decode())


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str) -> None:
    """Print aligned columns under a head, or ``empty`` where there is nothing."""
    cells = [[safe(cell) for cell in row] for row in rows]
    if not cells:
        note(empty)
        return
    widths = [max(len(row[place]) for row in (list(head), *cells)) for place in range(len(head))]
    for row in (list(head), *cells):
        say("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def fields(pairs: Iterable[tuple[str, str]]) -> None:
    """Print named values, one a line; empty ones are left out."""
    shown = [(name, safe(value)) for name, value in pairs if value]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        say(f"{name.ljust(width)}  {value}")


@contextmanager
def progress(what: str) -> Iterator[Callable[[int], None]]:
    """Count long work on stderr, if that is a terminal: one line that is written over, and is gone at the end."""
    if not sys.stderr.isatty():
        yield lambda count: None
        return
    shown_at_s = 0.0

    def step(count: int) -> None:
        nonlocal shown_at_s
        now_s = time.monotonic()
        if now_s - shown_at_s >= _SHOWN_EVERY_S:
            shown_at_s = now_s
            print(f"\r{count} {what}", end="", file=sys.stderr, flush=True)

    try:
        yield step
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _hexed(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {key: _hexed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_hexed(item) for item in value]
    return value
