"""Events as lines: how one is written, and how a visitor follows a journal that another process appends to."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping

import msgspec

from quarterdeck.app.views import row_of
from quarterdeck.cli.printing import emit, moment, safe, say
from quarterdeck.client.shapes import Event
from quarterdeck.core.vocabulary import TERMINAL
from quarterdeck.ports.store import Insights, StoredEvent

POLL_S = 0.05
"""How often a visitor looks for new events; an owner looks for visitors as often."""
PAGE = 500
"""Events read at once."""
_LEFT_OUT = frozenset({"contract"})
"""Fields that are too long for a line; `runs show` and `--json` have them."""


def stored_until_end(insights: Insights, run_id: str, after: int, *, follow: bool) -> Iterator[StoredEvent | None]:
    """The events of a run after ``after``; with ``follow`` also those to come, until the run has ended.

    Yields ``None`` whenever it is at the present, before it waits for more, so that the caller can do something else meanwhile.
    """
    while True:
        row = row_of(insights, run_id)
        page = insights.events(run_id, after, PAGE)
        for stored in page:
            after = stored.seq
            yield stored
        if len(page) == PAGE:
            continue
        if not follow or (row.status in TERMINAL and row.seq <= after):
            return
        yield None
        time.sleep(POLL_S)


class EventPrinter:
    """Writes events to stdout, one a line; with ``as_json`` as JSON Lines. Deltas go to a terminal only."""

    def __init__(self, *, content: bool, as_json: bool) -> None:
        self._content = content
        self._as_json = as_json
        self._deltas = sys.stdout.isatty() and not as_json
        self._midline = False

    @property
    def wanted(self) -> bool | None:
        """Which contents it has a use for: all (insisting), none, or ``None``: deltas, if they may be read."""
        return True if self._content else None if self._deltas else False

    def print(self, event: Event) -> None:
        """Print one event, or the piece of text that a delta adds."""
        if event.kind == "model.delta":
            self.delta(event.text)
            return
        self.break_line()
        if self._as_json:
            emit(as_object(event, content=self._content))
            return
        say(line(event))
        if self._content and event.content is not None:
            say(f"      {safe(msgspec.json.encode(event.content).decode())}")

    def delta(self, text: str) -> None:
        """Show what a model is writing, as it comes."""
        if self._deltas and text:
            print(safe(text, lines=True), end="", flush=True)
            self._midline = not text.endswith("\n")

    def break_line(self) -> None:
        """End a line that deltas have begun."""
        if self._midline:
            say()
            self._midline = False


def as_object(event: Event, *, content: bool) -> dict[str, object]:
    """An event as a JSON object; ``content`` only where contents were asked for."""
    shown: dict[str, object] = {"seq": event.seq, "kind": event.kind, "at_us": event.at_us, "body": event.body}
    return {**shown, "content": event.content} if content else shown


def line(event: Event) -> str:
    """An event as one line, without contents.

    >>> line(Event(2, "run.started", 5_000_000, {"worker": "w1", "epoch": 1}))
    '   2  1970-01-01T00:00:05Z  run.started         worker=w1 epoch=1'
    """
    told = " ".join(f"{name}={_short(value)}" for name, value in event.body.items() if name not in _LEFT_OUT)
    place, at = (f"{event.seq:>4}", moment(event.at_us)) if event.at_us is not None else ("   -", "-".ljust(20))
    return f"{place}  {at}  {safe(event.kind):<18}  {safe(told)}".rstrip()


def _short(value: object) -> str:
    if isinstance(value, str):
        return value if value and " " not in value else msgspec.json.encode(value).decode()
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{name}:{_short(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_short(item) for item in value) + "]"
    return msgspec.json.encode(value).decode()
