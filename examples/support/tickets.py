"""Tickets as text files: a ``From:`` line, an empty line, and what the customer wrote."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from examples.support.shop import Shop
from quarterdeck import ToolFailure

FOLDER = Path(__file__).with_name("tickets")
MAX_CHARACTERS = 600
"""A longer ticket is cut: the working set of a small model is small."""
_ORDER = re.compile(r"\bA\d{4}\b")


class Ticket(msgspec.Struct, frozen=True):
    """One ticket. ``sender`` comes from the mail system, so it is a fact; ``text`` is whatever somebody chose to write."""

    name: str
    sender: str
    text: str

    def message(self) -> str:
        """What the model is shown."""
        return f"From: {self.sender}\n{self.text}"


def read(path: Path, name: str | None = None) -> Ticket:
    """The ticket of one file, called like the file unless ``name`` says otherwise; bytes that are no text are replaced."""
    head, _, body = path.read_text("utf-8", errors="replace").partition("\n\n")
    if not head.startswith("From: "):
        head, body = "From: anonymous", f"{head}\n\n{body}"
    return Ticket(name or path.stem, head.removeprefix("From: ").strip(), body.strip()[:MAX_CHARACTERS])


def read_all(folder: Path = FOLDER) -> list[Ticket]:
    """Every ticket of a folder, by file name."""
    return [read(path) for path in sorted(folder.glob("*.txt"))]


def write(ticket: Ticket, folder: Path) -> Path:
    """Put a ticket into a folder, as a file that :func:`read` reads."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{ticket.name}.txt"
    path.write_text(f"From: {ticket.sender}\n\n{ticket.text}\n", "utf-8")
    return path


def sender_of(text: str, shop: Shop) -> str:
    """Whom a ticket without a sender must come from: the buyer of the order that it names, else ``anonymous``."""
    named = _ORDER.search(text)
    if named is None:
        return "anonymous"
    try:
        return shop.order(named[0]).customer
    except ToolFailure:
        return "anonymous"
