"""What operators did is told, signed, and nobody changes it unseen. (T11)"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from quarterdeck.app.auditing import Verified, rows_of, verify
from quarterdeck.app.budgets import Budget
from quarterdeck.app.notary import KEY_VARIABLE, kept_seals, public_key, public_path, seals_path, signing_key
from quarterdeck.cli.audit import check_log
from quarterdeck.cli.orders import visiting
from quarterdeck.cli.storefile import reading
from quarterdeck.core.audit import SEAL, Audit, AuditRow, Seal, appended, entry, read, seal_of, statement
from quarterdeck.core.commit import AddAudit
from quarterdeck.core.errors import UsageError
from quarterdeck.core.overrides import Change, parsed
from quarterdeck.store.sqlite.reader import SqliteInsights
from tests.app.desk import desk

KEY = "s.db.audit-key"


async def worked(folder: Path) -> Path:
    """A store in which operators did a few things."""
    path = folder / "s.db"
    async with desk().start(path) as runtime:
        await runtime.switch("disable_tool:look", by="eve", reason="incident")
        run = await runtime.submit("refunds", user="ada", tenant="acme")
        approval = (await run.rest()).waiting_on[0].partition(":")[2]
        await runtime.approve(approval, by="bob", reason="known customer")
        await run.result()
        second = await runtime.submit("refunds", user="ada", tenant="acme")
        await second.rest()
        await runtime.pause(second.id, by="eve", reason="a moment")
        await runtime.resume(second.id, by="eve")
        await runtime.cancel(second.id, by="eve", reason="enough")
        await second.result()
        await runtime.erase(run.id, by="eve", reason="asked by the customer")
    return path


def looked(path: Path) -> Verified:
    return check_log(path, None, None, None)


async def test_every_order_is_told_once_with_who_what_and_why(tmp_path: Path) -> None:
    path = await worked(tmp_path)
    with reading(path) as insights:
        said = [read(row) for row in rows_of(insights)]
    told = [(one.action, one.by, one.reason, one.tenant) for one in said if one.action != SEAL]
    assert told == [
        ("policy.activated", "deck:desk", "", ""),
        ("release.activated", "deck:desk", "", ""),
        ("switch.set", "eve", "incident", ""),
        ("switch.reached", "eve", "", ""),
        ("approval.approved", "bob", "known customer", "acme"),
        ("run.pause", "eve", "a moment", "acme"),
        ("run.resume", "eve", "", "acme"),
        ("run.cancel", "eve", "enough", "acme"),
        ("run.erase", "eve", "asked by the customer", "acme"),
    ]
    found = looked(path)
    assert (found.findings, found.unsealed) == ((), 0), "all is signed when the runtime has stopped"
    async with desk().start(path):
        pass
    assert looked(path).rows == found.rows, "a start that changes nothing tells nothing"


async def test_what_steers_a_run_and_what_it_depends_on_is_told_and_two_changes_at_once_are_both_kept(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    deck = desk()
    deck.route("chained", deck.agents["refunds"], escalation=["lead"])
    async with deck.start(path) as runtime:
        run = await runtime.submit("chained", user="ada", tenant="acme")
        await run.rest()
        await runtime.signal(run.id, "news", by="eve")
        assert await runtime.escalate(run.id, by="eve", reason="nobody looks") == "lead"
        await runtime.raise_budget(run.id, Budget(turns=20), by="eve", reason="it is long")
        await runtime.fork(run.id, "m0", by="eve")
        await runtime.raise_account("all", Budget(tokens=900_000), by="eve", reason="an event")
        names = ("tool:refund", "tool:look")
        changes = [runtime.change_dependency(name, Change(slots=2), for_s=60, by="eve", reason="slow") for name in names]
        assert sorted(await asyncio.gather(*changes)) == [1, 2]
        await runtime.change_dependency("tool:look", None, by="eve")
        await runtime.interrupt(run.id, "hear", by="eve")
    with reading(path) as insights:
        said = [one for one in map(read, rows_of(insights)) if one.by == "eve"]
        [row] = [row for row in insights.facts() if row.name == "dependencies"]
    assert [one.name for one in parsed(row.value)] == ["tool:refund"]
    assert [(one.action, one.target, one.reason, one.tenant) for one in said] == [
        ("run.signal", run.id, "", "acme"),
        ("run.escalate", run.id, "nobody looks", "acme"),
        ("run.budget", run.id, "it is long", "acme"),
        ("run.fork", run.id, "", "acme"),
        ("account.limited", "all", "an event", ""),
        ("dependency.changed", "tool:refund", "slow", ""),
        ("dependency.changed", "tool:look", "slow", ""),
        ("dependency.restored", "tool:look", "", ""),
        ("run.interrupt", run.id, "", "acme"),
    ]
    assert looked(path).findings == ()


async def test_the_key_is_for_its_owner_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = await worked(tmp_path)
    key = tmp_path / KEY
    assert key.stat().st_mode & 0o777 == 0o600
    key.chmod(0o640)
    with pytest.raises(UsageError, match="can be read by others"):
        signing_key(key)
    monkeypatch.setenv(KEY_VARIABLE, str(tmp_path / "elsewhere"))
    async with desk().start(path):
        pass
    assert (tmp_path / "elsewhere").exists()


async def test_what_a_visitor_does_is_signed_by_the_next_runtime(tmp_path: Path) -> None:
    path = await worked(tmp_path)
    await visiting(path)(AddAudit(Audit("decision.marked", "eve", "r/t0.0", 5)))
    assert looked(path).unsealed == 1
    async with desk().start(path):
        pass
    assert looked(path).unsealed == 0


def rewritten(path: Path, change: Callable[[list[AuditRow]], list[AuditRow]]) -> None:
    """Somebody who owns the store changes the log behind everybody's back."""
    insights = SqliteInsights(path)
    rows = change(list(rows_of(insights)))
    insights.close()
    db = apsw.Connection(str(path))
    db.execute("DELETE FROM audit")
    for row in rows:
        db.execute("INSERT INTO audit VALUES (?, ?, ?, ?)", (row.seq, row.body, row.seq.to_bytes(32, "big"), row.hash))
    db.close()


def flipped(rows: list[AuditRow]) -> list[AuditRow]:
    body = rows[4].body.replace(b"eve", b"ada").replace(b"bob", b"joe").replace(b'"by"', b'"bY"')
    return [*rows[:4], AuditRow(rows[4].seq, body, rows[4].hash), *rows[5:]]


def rechained(rows: list[AuditRow]) -> list[AuditRow]:
    """Every row's hash made anew, with one row's author changed: the chain alone holds."""
    made: list[AuditRow] = []
    for row in rows:
        made.append(appended(made, row.body.replace(b'"by":"eve"', b'"by":"joe"')))
    return made


def signed_by_another(rows: list[AuditRow]) -> list[AuditRow]:
    """The chain made anew, and the seals as well, with a key of one's own."""
    import msgspec

    key = Ed25519PrivateKey.generate()
    made: list[AuditRow] = []
    for row in rechained(rows):
        seal, body = seal_of(row), row.body
        if seal is not None:
            digest = made[seal.seq - 1].hash
            signature = key.sign(statement(seal.seq, digest, seal.store)).hex()
            other = Seal(seal.seq, digest.hex(), seal.store, key.public_key().public_bytes_raw().hex(), signature)
            body = entry(msgspec.structs.replace(read(row), detail=msgspec.json.encode(other).decode()))
        made.append(appended(made, body))
    return made


ATTACKS: dict[str, tuple[Callable[[list[AuditRow]], list[AuditRow]], str]] = {
    "a bit flipped": (flipped, "audit.chain"),
    "a row removed": (lambda rows: [*rows[:3], *rows[4:]], "audit.gap"),
    "a row removed, the others renumbered": (
        lambda rows: [*rows[:3], *[AuditRow(row.seq - 1, row.body, row.hash) for row in rows[4:]]],
        "audit.chain",
    ),
    "two rows exchanged": (
        lambda rows: [rows[0], AuditRow(2, rows[2].body, rows[2].hash), AuditRow(3, rows[1].body, rows[1].hash), *rows[3:]],
        "audit.chain",
    ),
    "a row put in": (lambda rows: [*rows, AuditRow(len(rows) + 1, b'{"action":"x"}', bytes(32))], "audit.chain"),
    "the end cut off": (lambda rows: rows[:-3], "audit.truncated"),
    "all of it cut off": (lambda rows: [], "audit.truncated"),
    "chained anew without the key": (rechained, "audit.rewritten"),
    "signed anew with another key": (signed_by_another, "audit.untrusted"),
}


@pytest.mark.parametrize("name", ATTACKS)
async def test_an_attack_on_the_log_is_found(name: str, tmp_path: Path) -> None:
    path = await worked(tmp_path)
    attack, code = ATTACKS[name]
    rewritten(path, attack)
    assert code in {finding.code for finding in looked(path).findings}


async def test_a_seal_that_was_changed_is_found(tmp_path: Path) -> None:
    path = await worked(tmp_path)
    with reading(path) as insights:
        rows = list(rows_of(insights))
    kept = kept_seals(seals_path(tmp_path / KEY))
    key = public_key(public_path(tmp_path / KEY))
    forged = [Seal(kept[0].seq, "00" * 32, kept[0].store, kept[0].key, kept[0].signature)]
    assert [finding.code for finding in verify(rows, [key], forged).findings] == ["audit.signature"]
    assert verify(rows, [key], kept).findings == ()
    assert {finding.code for finding in verify(rows, [], kept).findings} == {"audit.untrusted"}


async def test_what_is_cut_off_with_its_seals_is_found_only_against_a_kept_one(tmp_path: Path) -> None:
    """Exactly what is not found: the rows behind the newest seal that somebody kept, and the seals among them."""
    path = await worked(tmp_path)
    with reading(path) as insights:
        rows = list(rows_of(insights))
    kept = kept_seals(seals_path(tmp_path / KEY))
    key = public_key(public_path(tmp_path / KEY))
    cut = rows[: kept[2].seq]
    assert verify(cut, [key], ()).findings == (), "without a copy of the seals nothing shows it"
    assert verify(cut, [key], kept[:3]).findings == (), "nor with an older copy"
    assert {finding.code for finding in verify(cut, [key], kept[:4]).findings} == {"audit.truncated"}


async def test_a_notary_signs_nothing_that_was_rewritten(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = await worked(tmp_path)
    rewritten(path, flipped)
    before = looked(path).seals
    async with desk().start(path) as runtime:
        assert runtime.notary is not None and runtime.notary.broken is not None
        await runtime.switch("freeze")
    assert looked(path).seals == before
    assert "not signed any more" in caplog.text
