"""The shop that the desk works for: a SQLite file of its own, apart from Quarterdeck's journal.

It stands for the systems that an agent acts upon in earnest. Its refund ledger is unique on the idempotency key, so that one can
count afterwards, at the shop and not at the runtime, whether anything happened twice. Amounts are whole dollars.

Every method is one short transaction on a connection of its own, so any number of threads and processes may call them.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import msgspec

from examples.support import generator
from examples.support.generator import Order
from quarterdeck import ToolFailure

FOLDER = Path(__file__).parents[2] / "build" / "demo"
"""Where the shop and the journal live unless ``SUPPORT_FOLDER`` names another folder."""

UNDER_WAY = frozenset({"packed", "shipped"})
"""Orders that have not arrived yet; there is nothing to refund."""

HANDBOOK = {
    "refunds": "Refund what was delivered or got lost, within 60 days. Over 50 $ a person decides. Over 500 $ is never refunded here.",
    "delivery": "Orders leave within three days and arrive within seven. A lost parcel is refunded in full.",
    "address": "The address can be changed until the parcel has been handed to the carrier.",
    "returns": "Unused goods can be sent back within 30 days; the label is in the parcel.",
}
"""What ``search_policy`` finds, by topic."""


class Refund(msgspec.Struct, frozen=True):
    """One line of the ledger. ``asked`` counts the requests under its key: more than one means that somebody asked again."""

    key: str
    order_id: str
    amount_usd: int
    run_id: str
    asked: int = 1
    reversed: bool = False


class Letter(msgspec.Struct, frozen=True):
    """One letter that the mail gateway has taken."""

    key: str
    sent_to: str
    text: str
    run_id: str


class Shop:
    """The shop in one file; it is made, full of orders, when it is first used."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def here(cls) -> Shop:
        """The shop of ``SUPPORT_FOLDER``, by default of ``build/demo``."""
        return cls(Path(os.environ.get("SUPPORT_FOLDER", FOLDER)) / "shop.db")

    def create(self, seed: int = generator.SEED) -> None:
        """Make the file, whole or not at all; does nothing where it exists."""
        if self.path.exists():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        draft.unlink(missing_ok=True)
        addresses = {customer.email: customer.address for customer in generator.customers(seed)}
        with closing(sqlite3.connect(draft)) as db:
            db.executescript(Path(__file__).with_name("shop.sql").read_text("utf-8"))
            people = [msgspec.structs.astuple(customer) for customer in generator.customers(seed)]
            sold = [(*msgspec.structs.astuple(order), addresses[order.customer]) for order in generator.orders(seed)]
            db.executemany("INSERT INTO customers VALUES (?, ?, ?)", people)
            db.executemany("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)", sold)
            db.commit()
            db.execute("PRAGMA journal_mode = WAL")
        draft.replace(self.path)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self.create()
        with closing(sqlite3.connect(self.path, timeout=10.0, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
            except BaseException:
                db.execute("ROLLBACK")
                raise
            db.execute("COMMIT")

    def order(self, order_id: str, customer: str | None = None) -> Order:
        """One order; with ``customer``, only if it is that customer's. Whose else it is, is not told."""
        with self._transaction() as db:
            return _order(db, order_id, customer)

    def orders_of(self, customer: str) -> list[str]:
        """The numbers of a customer's orders."""
        with self._transaction() as db:
            return [row[0] for row in db.execute("SELECT id FROM orders WHERE customer = ? ORDER BY id", (customer,))]

    def note(self, key: str, order_id: str, text: str) -> None:
        """Write a note on an order; the same key writes the same note."""
        with self._transaction() as db:
            db.execute("INSERT INTO notes VALUES (?, ?, ?) ON CONFLICT (key) DO NOTHING", (key, order_id, text))

    def move(self, order_id: str, customer: str, address: str) -> str:
        """Send an order elsewhere, as long as it has not left; doing it twice is doing it once. Returns the former address."""
        with self._transaction() as db:
            order = _order(db, order_id, customer)
            if order.status != "packed":
                raise ToolFailure("order.has_left", f"{order_id} is {order.status}; its address can no longer be changed")
            former = str(db.execute("SELECT ship_to FROM orders WHERE id = ?", (order_id,)).fetchone()[0])
            db.execute("UPDATE orders SET ship_to = ? WHERE id = ?", (address, order_id))
            return former

    def refund(self, key: str, order_id: str, amount_usd: int, customer: str, run_id: str) -> Refund:
        """Pay money back, once per key. Whatever the caller believes: only to the buyer, when it is due, and no more than was paid."""
        with self._transaction() as db:
            known = _refund(db, key)
            if known is not None:
                db.execute("UPDATE refunds SET asked = asked + 1 WHERE key = ?", (key,))
                return msgspec.structs.replace(known, asked=known.asked + 1)
            order = _order(db, order_id, customer)
            if order.status in UNDER_WAY:
                raise ToolFailure(
                    "refund.not_due", f"{order_id} is {order.status}; only what has arrived, or got lost, is refunded"
                )
            before = "SELECT coalesce(sum(amount_usd), 0) FROM refunds WHERE order_id = ? AND NOT reversed"
            if db.execute(before, (order_id,)).fetchone()[0] + amount_usd > order.amount_usd:
                raise ToolFailure("refund.more_than_paid", f"{order_id} cost {order.amount_usd} $; more cannot be paid back")
            made = "INSERT INTO refunds (key, order_id, amount_usd, run_id) VALUES (?, ?, ?, ?)"
            db.execute(made, (key, order_id, amount_usd, run_id))
            return Refund(key, order_id, amount_usd, run_id)

    def find_refund(self, key: str) -> Refund | None:
        """The refund under this key, if there is one."""
        with self._transaction() as db:
            return _refund(db, key)

    def reverse_refund(self, key: str) -> None:
        """Take a refund back; doing it twice is doing it once."""
        with self._transaction() as db:
            db.execute("UPDATE refunds SET reversed = 1 WHERE key = ?", (key,))

    def send(self, key: str, to: str, text: str, run_id: str) -> int:
        """Give a letter to the gateway, which sends whatever it is given; the number of the letter."""
        with self._transaction() as db:
            made = "INSERT INTO outbox (key, sent_to, text, run_id) VALUES (?, ?, ?, ?)"
            return db.execute(made, (key, to, text, run_id)).lastrowid or 0

    def refunds(self) -> list[Refund]:
        """The whole ledger, oldest first."""
        with self._transaction() as db:
            rows = db.execute("SELECT key, order_id, amount_usd, run_id, asked, reversed FROM refunds ORDER BY number")
            return [_line(row) for row in rows]

    def letters(self) -> list[Letter]:
        """Every letter that was sent, oldest first."""
        with self._transaction() as db:
            return [Letter(*row) for row in db.execute("SELECT key, sent_to, text, run_id FROM outbox ORDER BY number")]

    def size(self) -> tuple[int, int]:
        """How many customers and orders there are."""
        with self._transaction() as db:
            row = db.execute("SELECT (SELECT count(*) FROM customers), (SELECT count(*) FROM orders)").fetchone()
            return int(row[0]), int(row[1])


def _order(db: sqlite3.Connection, order_id: str, customer: str | None) -> Order:
    row = db.execute("SELECT id, customer, item, amount_usd, status, placed FROM orders WHERE id = ?", (order_id,)).fetchone()
    if row is None or customer not in (None, row[1]):
        raise ToolFailure("order.not_found", f"{customer or 'the shop'} has no order {order_id}")
    return Order(*row)


def _line(row: tuple[str, str, int, str, int, int]) -> Refund:
    key, order_id, amount_usd, run_id, asked, was_reversed = row
    return Refund(key, order_id, amount_usd, run_id, asked, bool(was_reversed))


def _refund(db: sqlite3.Connection, key: str) -> Refund | None:
    wanted = "SELECT key, order_id, amount_usd, run_id, asked, reversed FROM refunds WHERE key = ?"
    row = db.execute(wanted, (key,)).fetchone()
    return None if row is None else _line(row)
