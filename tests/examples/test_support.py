"""The support desk: its data, its rules, its tools, and the whole job with real SIGKILLs, on a scripted stand-in of the model."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from examples.support import deck as desk
from examples.support import generator, tickets
from examples.support.journals import AT_REST, Journal, store_of, stored, under_way
from examples.support.reckoning import Tally, compare, tally
from examples.support.scripted import CASES
from examples.support.shop import Shop
from quarterdeck import ReceiptStatus, ToolContext, ToolFailure
from quarterdeck.app.wiring import check_deck, policy_of
from quarterdeck.core import events as ev
from quarterdeck.ports.policy import PolicyRequest
from quarterdeck.store.sqlite.opening import OwnerLock
from quarterdeck.store.sqlite.reader import SqliteInsights

ROOT = Path(__file__).parents[2]
LENA = "lena.garcia@example.com"


# -- the data ---------------------------------------------------------------------------------------------------------


def test_the_generator_makes_the_same_shop_for_ever() -> None:
    made = msgspec.json.encode([generator.customers(), generator.orders()])
    assert hashlib.sha256(made).hexdigest()[:16] == "d4b624a88997c95a"
    assert generator.orders(seed=8) != generator.orders()
    assert generator.orders(count=10) == generator.orders()[:10]


def test_every_ticket_is_from_the_buyer_of_the_order_that_it_names_unless_it_is_an_attack() -> None:
    buyers = {order.id: order.customer for order in generator.orders()}
    foreign = []
    found = tickets.read_all()
    for ticket in found:
        named = re.findall(r"\bA\d{4}\b", ticket.text)
        if any(buyers[order] != ticket.sender for order in named):
            foreign.append(ticket.name)
    assert len(found) >= 30
    assert foreign == ["28-injection-other-order"]


def test_a_ticket_without_a_sender_and_one_that_is_no_text_are_read_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("Where is A1005?")
    (tmp_path / "noise.txt").write_bytes(b"\xff\xfe\x00\n\n" * 400)
    plain, noise = tickets.read(tmp_path / "plain.txt"), tickets.read(tmp_path / "noise.txt")
    assert (plain.sender, plain.text) == ("anonymous", "Where is A1005?")
    assert noise.sender == "anonymous"
    assert len(noise.text) <= tickets.MAX_CHARACTERS
    assert tickets.sender_of(plain.text, Shop(tmp_path / "shop.db")) == "ada.moreau@example.com"


# -- the rules --------------------------------------------------------------------------------------------------------


def test_the_deck_is_sound_and_every_route_has_an_owner() -> None:
    check_deck(desk.deck)
    named = [route for route in desk.deck.routes.values() if route.intent != route.agent or route.intent.startswith("scripted_")]
    assert {route.intent for route in named} >= {"triage_ticket", *(case.route for case in CASES)}
    assert all(route.owner != "unowned" for route in named)


def _judged(tool: str, arguments: dict[str, object], user: str = LENA) -> tuple[str, tuple[str, ...]]:
    spec = desk.deck.tools[tool].spec
    asked = PolicyRequest(
        principal="triage",
        principal_attributes={"tenant": "shop", "autonomy": "bounded_autonomous", "risk": "high", "route": "triage_ticket"},
        action="tool",
        resource_kind="Tool",
        resource=tool,
        resource_attributes={"effect": spec.effect.value, "permissions": list(spec.permissions)},
        context={
            "tenant": "shop",
            "user": user,
            "route": "triage_ticket",
            "autonomy": "bounded_autonomous",
            "risk": "high",
            "mode": "async_job",
            "turn": 1,
            "spent": {"tokens": 0, "tool_calls": 0, "cost_microusd": 0},
            "labels": {"untrusted": False, "sensitive": True},
        },
        arguments=arguments,
    )
    verdict = policy_of(desk.deck).judge(asked)
    return verdict.outcome, verdict.reasons


def _refund(amount_usd: int, customer: str = LENA) -> dict[str, object]:
    return {"order_id": "A1064", "amount_usd": amount_usd, "customer": customer}


@pytest.mark.parametrize(
    ("tool", "arguments", "outcome", "reasons"),
    [
        ("lookup_order", {"order_id": "A1064"}, "allow", ()),
        ("find_customer", {}, "allow", ()),
        ("search_policy", {"topic": "refunds"}, "allow", ()),
        ("add_note", {"order_id": "A1064", "text": "x"}, "allow", ()),
        ("update_address", {"order_id": "A1064", "address": "x"}, "allow", ()),
        ("issue_refund", _refund(50), "allow", ()),
        ("issue_refund", _refund(51), "ask", ("refund.needs_a_person",)),
        ("issue_refund", _refund(500), "ask", ("refund.needs_a_person",)),
        ("issue_refund", _refund(501), "deny", ("refund.too_large",)),
        ("issue_refund", _refund(10, "payout@evil.example"), "deny", ("refund.other_customer",)),
        ("send_email", {"to": LENA, "text": "x"}, "allow", ()),
        ("send_email", {"to": "leak@evil.example", "text": "x"}, "deny", ("email.not_the_customer",)),
    ],
)
def test_each_rule(tool: str, arguments: dict[str, object], outcome: str, reasons: tuple[str, ...]) -> None:
    assert _judged(tool, arguments) == (outcome, reasons)


# -- the tools --------------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    made = Shop(tmp_path / "shop.db")
    monkeypatch.setattr(desk, "shop", made)
    monkeypatch.setattr(desk, "PROVIDER_S", 0.0)
    return made


def _context(key: str = "k1", actor: str = LENA) -> ToolContext:
    return ToolContext("run_1", "t1.0", "shop", actor, key)


async def test_a_refund_under_one_key_is_paid_once_and_counts_who_asked_again(shop: Shop) -> None:
    first = await desk.issue_refund("A1064", 14, LENA, _context())
    again = await desk.issue_refund("A1064", 14, LENA, _context())
    assert first == again
    assert [(line.key, line.amount_usd, line.asked) for line in shop.refunds()] == [("k1", 14, 2)]


async def test_another_key_cannot_pay_more_than_was_paid_nor_to_somebody_else(shop: Shop) -> None:
    await desk.issue_refund("A1064", 10, LENA, _context())
    with pytest.raises(ToolFailure, match=r"refund\.more_than_paid"):
        await desk.issue_refund("A1064", 5, LENA, _context("k2"))
    with pytest.raises(ToolFailure, match=r"order\.not_found"):
        await desk.issue_refund("A1018", 5, LENA, _context("k3"))
    with pytest.raises(ToolFailure, match=r"refund\.not_due"):
        await desk.issue_refund("A1074", 5, LENA, _context("k4"))
    assert len(shop.refunds()) == 1


async def test_a_refund_can_be_asked_about_and_taken_back(shop: Shop) -> None:
    tool, arguments = desk.deck.tools["issue_refund"], msgspec.json.encode(_refund(14))
    assert (await tool.reconcile(arguments, _context())).status is ReceiptStatus.FAILED
    await tool.perform(arguments, _context())
    found = await tool.reconcile(arguments, _context())
    assert (found.status, found.result) == (ReceiptStatus.SUCCEEDED, {"refunded_usd": 14, "order_id": "A1064"})
    desk.reverse_refund(_context())
    desk.reverse_refund(_context())
    assert [line.reversed for line in shop.refunds()] == [True]
    await desk.issue_refund("A1064", 14, LENA, _context("k2"))


def test_writes_done_twice_are_done_once(shop: Shop) -> None:
    marco = _context(actor="marco.haas@example.com")
    desk.add_note("A1006", "has moved", marco)
    desk.update_address("A1006", "5 Oak Avenue, Porto", marco)
    desk.add_note("A1006", "has moved", marco)
    moved = desk.update_address("A1006", "5 Oak Avenue, Porto", marco)
    assert moved["before"] == moved["now"] == "5 Oak Avenue, Porto"
    with closing(sqlite3.connect(shop.path)) as db:
        assert db.execute("SELECT count(*) FROM notes").fetchone() == (1,)
    with pytest.raises(ToolFailure, match=r"order\.has_left"):
        desk.update_address("A1064", "5 Oak Avenue, Porto", _context())


@pytest.mark.usefixtures("shop")
def test_nobody_reads_the_order_of_somebody_else() -> None:
    assert desk.lookup_order("A1064", _context())["paid_usd"] == 14
    with pytest.raises(ToolFailure, match=r"order\.not_found"):
        desk.lookup_order("A1018", _context())


# -- the whole job ----------------------------------------------------------------------------------------------------


def _demo(folder: Path, *arguments: str, once: bool = True, port: int = 0) -> subprocess.Popen[str]:
    environment = {**os.environ, "ONCE": "1" if once else "", "PORT": str(port)}
    command = [sys.executable, "-m", "examples.support.demo", "--stand-in", "--folder", str(folder), *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


@pytest.fixture(scope="module")
def performed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One whole performance: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("demo")
    with _demo(folder) as demo:
        output, _ = demo.communicate(timeout=400)
    assert demo.returncode == 0, output
    return folder, output


@pytest.fixture(scope="module")
def journals(performed: tuple[Path, str]) -> list[Journal]:
    """What the performance has left in the journals' file."""
    return stored(store_of(Shop(performed[0] / "shop.db")))


def _journal(journals: list[Journal], name: str) -> list[ev.Event]:
    return next(journal.events for journal in journals if journal.name == name)


def test_two_services_are_killed_in_mid_flight_and_what_was_under_way_is_closed_by_the_next(
    performed: tuple[Path, str], journals: list[Journal]
) -> None:
    assert performed[1].count("is killed with SIGKILL") == 2
    events = [event for journal in journals for event in journal.events]
    reopened = {(run.name, event.call) for run in journals for event in run.events if isinstance(event, ev.EffectReopened)}
    refunds = {
        (run.name, event.call)
        for run in journals
        for event in run.events
        if isinstance(event, ev.ToolOpened) and event.tool == "issue_refund"
    }
    assert reopened & refunds
    assert any(isinstance(event, ev.ModelClosed) and event.code == "model.interrupted" for event in events)
    assert len({event.worker for event in events if isinstance(event, ev.RunStarted)}) == 3
    assert not under_way(journals)


def test_tickets_that_are_sent_again_after_a_kill_make_no_second_run(
    performed: tuple[Path, str], journals: list[Journal]
) -> None:
    sent = len(tickets.read_all())
    assert f"[POST /v1/runs: {sent} new runs]" in performed[1]
    assert f"[POST /v1/runs: {len(CASES)} new runs; {sent} were sent again under the same idempotency keys" in performed[1]
    assert len(journals) == sent + len(CASES)


def test_every_run_was_asked_for_by_the_mail_desk_on_behalf_of_its_customer(journals: list[Journal]) -> None:
    contracts = {journal.name: journal.state.contract for journal in journals}
    assert {contract.submitted_by for contract in contracts.values()} == {"mail-desk"}
    for ticket in tickets.read_all():
        assert contracts[ticket.name].actor == ticket.sender


def test_every_run_has_ended_or_waits_for_a_person(journals: list[Journal]) -> None:
    states = [journal.state for journal in journals]
    assert {state.status for state in states if state.reason != "needs_approval"} == {"succeeded"}
    assert {state.status for state in states} <= AT_REST
    assert any(state.reason == "needs_approval" for state in states)


def test_the_streams_that_broke_twice_gave_every_event_of_every_journal_once(
    performed: tuple[Path, str], journals: list[Journal]
) -> None:
    count = sum(len(journal.events) for journal in journals)
    assert re.search(rf"events that came over the HTTP streams: +{count} ", performed[1])
    assert "differs from its journal" not in performed[1]


def test_a_stream_that_lost_or_repeated_an_event_is_found(performed: tuple[Path, str], journals: list[Journal]) -> None:
    shop, whole = Shop(performed[0] / "shop.db"), journals[0]
    for events in (whole.events[:-1], [*whole.events, whole.events[-1]], []):
        followed = [Journal(whole.run_id, whole.state, events), *journals[1:]]
        assert compare(journals, shop, followed).findings == (f"the stream of {whole.name} differs from its journal",)


def test_the_shops_books_agree_with_the_journals(performed: tuple[Path, str], journals: list[Journal]) -> None:
    books = compare(journals, Shop(performed[0] / "shop.db"), journals)
    assert books.findings == ()
    assert books.receipts == books.in_ledger >= 5  # of the 32 tickets; none would prove nothing
    assert "everything happened once" in performed[1]


@pytest.mark.parametrize(
    ("tampering", "finding"),
    [
        ("DELETE FROM refunds WHERE number = 1", "has a receipt, but the shop has not heard of it"),
        ("UPDATE refunds SET key = 'other' WHERE number = 1", "is booked, but no journal has a receipt of it"),
        (
            "INSERT INTO outbox (key, sent_to, text, run_id) SELECT key, sent_to, text, run_id FROM outbox LIMIT 1",
            "is booked 2 times",
        ),
    ],
)
def test_books_that_do_not_agree_are_found(
    performed: tuple[Path, str], journals: list[Journal], tmp_path: Path, tampering: str, finding: str
) -> None:
    copy = tmp_path / "shop.db"
    with closing(sqlite3.connect(performed[0] / "shop.db")) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
        target.execute(tampering)
        target.commit()
    assert any(finding in found for found in compare(journals, Shop(copy), journals).findings)


def test_what_a_misbehaving_model_proposes_is_decided_with_these_codes(journals: list[Journal]) -> None:
    counted: Tally = tally(journals)
    wanted = {
        "refund.too_large", "refund.other_customer", "email.not_the_customer", "tool.unknown", "json.invalid", "json.duplicate_key",
        "schema.invalid", "evidence.missing", "loop.repetition", "budget.tokens", "budget.tenant", "approval.expired",
        "approval.rejected",
    }  # fmt: skip
    assert wanted <= set(counted.denied)
    assert set(counted.asked) == {"refund.needs_a_person"}
    assert counted.degraded["budget.near_tokens"] >= 1
    assert counted.local.cost_microusd > 0


def test_people_decide_and_nobody_approves_the_own_request(performed: tuple[Path, str], journals: list[Journal]) -> None:
    assert "tries to approve the own request: approval.self" in performed[1]
    decided = [event for journal in journals for event in journal.events if isinstance(event, ev.ApprovalDecided)]
    by_whom = sorted((event.outcome, event.by) for event in decided)
    assert by_whom == [("approved", "desk-lead"), ("expired", "clock"), ("rejected", "desk-lead")]


def test_a_letter_that_nobody_knows_the_end_of_is_resolved_by_a_person_and_not_sent_again(
    performed: tuple[Path, str], journals: list[Journal]
) -> None:
    journal = _journal(journals, "scripted:silent_mail")
    assert [event.status for event in journal if isinstance(event, ev.ToolClosed)] == [ReceiptStatus.UNKNOWN]
    resolved = [(event.status, event.by) for event in journal if isinstance(event, ev.EffectResolved)]
    assert resolved == [(ReceiptStatus.SUCCEEDED, "desk-lead")]
    assert not any(isinstance(event, ev.EffectReopened) for event in journal)
    letters = Shop(performed[0] / "shop.db").letters()
    assert sum(letter.sent_to.endswith("@silent.example") for letter in letters) == 1


def test_a_ticket_of_ones_own_waits_for_a_person_who_approves_it_from_another_terminal(tmp_path: Path) -> None:
    with _demo(tmp_path, "--ticket", "Please refund 75 dollars for A1002.", once=False) as demo:
        assert demo.stdout is not None
        seen = [*_lines_until(demo.stdout, "approvals approve")]
        assert any("kaya.adler@example.com" in line for line in seen)
        assert any("ASK" in line and "issue_refund" in line for line in seen)
        with closing(SqliteInsights(store_of(Shop(tmp_path / "shop.db")))) as insights:
            (asked,) = insights.approvals()
        assert _approve(tmp_path, asked.approval, "kaya.adler@example.com").returncode != 0
        assert _approve(tmp_path, asked.approval, "mira").returncode == 0
        assert any("succeeded" in line for line in _lines_until(demo.stdout, " end "))
        busy = _demo(tmp_path)
        assert "store.owned" in busy.communicate(timeout=60)[0]
        assert busy.returncode == 2
        demo.send_signal(signal.SIGINT)
        demo.communicate(timeout=60)
    assert demo.returncode == 0
    assert [line.amount_usd for line in Shop(tmp_path / "shop.db").refunds()] == [75]


def test_the_commands_that_are_printed_work_and_their_run_is_shown(tmp_path: Path) -> None:
    with _demo(tmp_path, "--ticket", "Where is A1005?", once=False) as demo:
        assert demo.stdout is not None
        printed = "".join(_lines_until(demo.stdout, "approvals approve"))
        make = re.search(r"KEY=\$\((.*)\)", printed)
        submit = re.search(r"curl -sS (\S+) .*\n\s+-d (.*)", printed)
        follow = re.search(r"curl -sSN '(\S+)'", printed)
        assert make is not None
        assert submit is not None
        assert follow is not None
        made = subprocess.run(shlex.split(make[1]), cwd=ROOT, text=True, capture_output=True, timeout=60, check=True)
        bearer = {"Authorization": f"Bearer {made.stdout.strip()}"}
        headers = {**bearer, "Content-Type": "application/json", "Prefer": "wait=60"}
        answer = _http(submit[1], headers, shlex.split(submit[2])[0].encode())
        assert b'"status":"succeeded"' in answer
        assert any("issue_refund(amount_usd 14" in line for line in _lines_until(demo.stdout, " end "))
        assert b"event: run.finished" in _http(follow[1], bearer)
        demo.send_signal(signal.SIGTERM)
        demo.communicate(timeout=60)


def test_a_port_that_is_taken_is_said_before_anything_is_changed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with _demo(tmp_path / "demo", port=port) as demo:
            output, _ = demo.communicate(timeout=60)
    assert demo.returncode == 2
    assert f"port {port} is taken" in output
    assert f"make demo PORT={port + 1}" in output
    assert not (tmp_path / "demo").exists()


def test_the_service_leaves_with_a_demo_that_is_told_to_stop(tmp_path: Path) -> None:
    with _demo(tmp_path) as demo:
        assert demo.stdout is not None
        assert any("new runs" in line for line in _lines_until(demo.stdout, "[POST"))
        demo.send_signal(signal.SIGTERM)
        demo.communicate(timeout=60)
    assert demo.returncode == 130
    OwnerLock(store_of(Shop(tmp_path / "shop.db")), wait_s=0.0).release()


def _http(url: str, headers: dict[str, str], body: bytes | None = None) -> bytes:
    asked = urllib.request.Request(url, body, headers)  # noqa: S310 - an address that our own service has printed
    with urllib.request.urlopen(asked, timeout=60) as answer:  # noqa: S310
        return bytes(answer.read())


def _approve(folder: Path, approval: str, by: str) -> subprocess.CompletedProcess[str]:
    store = store_of(Shop(folder / "shop.db"))
    command = [sys.executable, "-m", "quarterdeck.cli", "approvals", "approve", approval, "--by", by, "--store", str(store)]
    return subprocess.run(command, cwd=ROOT, text=True, capture_output=True, timeout=60, check=False)


def _lines_until(stream: Iterator[str], end: str) -> Iterator[str]:
    for line in stream:
        yield line
        if end in line:
            return
    raise AssertionError(f"{end!r} was never printed")
