"""API keys: stored by digest, never replaced, ended for ever."""

from __future__ import annotations

from quarterdeck.core.commit import AddKey, Applied, Refused, RevokeKey
from quarterdeck.core.identity import EVERY_TENANT, Grant, Role
from quarterdeck.testing.conformance.stand import Stand, check, demand, done, refused, submit
from quarterdeck.testing.patching import varied
from quarterdeck.testing.samples import DAY_US, T0_US

ADMIN = (Grant(EVERY_TENANT, Role.ADMIN),)


def _key(prefix: str = "aaaaaaaaaa", fill: int = 1, first: bool = False) -> AddKey:
    grants = (Grant("acme", Role.APPROVER), Grant("globex", Role.VIEWER))
    return AddKey(prefix, bytes([fill]) * 32, "ci", "build", grants, "ada", T0_US, T0_US + DAY_US, first)


def _prefixes(stand: Stand) -> list[str]:
    found = stand.insights.keys()
    return [row.prefix for row in found]


@check(1, "I15")
async def a_key_is_found_as_it_was_made(stand: Stand) -> None:
    """A key's row says what it may do, for whom and until when; lists are in the order of making; an unknown one is not there."""
    demand(stand.insights.key("aaaaaaaaaa") is None and not stand.insights.keys(), "there is none at first")
    await done(stand, _key("bbbbbbbbbb", 2))
    await done(stand, _key())
    row = stand.insights.key("aaaaaaaaaa")
    demand(row is not None and (row.digest, row.label, row.subject) == (b"\1" * 32, "ci", "build"), "what and who")
    demand(row is not None and row.grants == _key().grants, "what it may do, and where")
    demand(row is not None and (row.created_by, row.created_at_us, row.expires_at_us) == ("ada", T0_US, T0_US + DAY_US), "when")
    demand(row is not None and row.revoked_at_us is None, "and that it is not revoked")
    demand(_prefixes(stand) == ["bbbbbbbbbb", "aaaaaaaaaa"], "the oldest first")
    demand(stand.insights.key("cccccccccc") is None, "another is not there")
    await stand.replace_owner()
    demand(stand.insights.key("aaaaaaaaaa") == row, "a new owner finds it unchanged")


@check(4, "I15")
async def a_key_is_never_replaced(stand: Stand) -> None:
    """A taken prefix is refused by `key`, whatever differs, in the same tick too; the very same key again is success."""
    outcomes = await submit(stand, _key(), _key(fill=2))
    demand(isinstance(outcomes[0], Applied), "the first is stored")
    demand(isinstance(outcomes[1], Refused) and outcomes[1].guard == "key", "another with its prefix is not")
    row = stand.insights.key("aaaaaaaaaa")
    await refused(stand, _key(fill=3), "key")
    await refused(stand, varied(_key(), grants=ADMIN), "key")
    await refused(stand, varied(_key(), subject="eve"), "key")
    await refused(stand, varied(_key(), expires_at_us=None), "key")
    await done(stand, _key())
    demand(stand.insights.key("aaaaaaaaaa") == row and len(stand.insights.keys()) == 1, "nothing changed")


@check(3, "I15")
async def a_revoked_key_stays_revoked(stand: Stand) -> None:
    """A revocation names who, when and why, and is final: neither another revocation nor the key's making again changes it."""
    await done(stand, _key())
    await done(stand, _key("bbbbbbbbbb", 2))
    await done(stand, RevokeKey("aaaaaaaaaa", "grace", "leaked", T0_US + 5))
    row = stand.insights.key("aaaaaaaaaa")
    demand(row is not None and (row.revoked_at_us, row.revoked_by, row.reason) == (T0_US + 5, "grace", "leaked"), "it is")
    await done(stand, RevokeKey("aaaaaaaaaa", "linus", "again", T0_US + 6))
    await done(stand, _key())
    demand(stand.insights.key("aaaaaaaaaa") == row, "the first revocation stands")
    other = stand.insights.key("bbbbbbbbbb")
    demand(other is not None and other.revoked_at_us is None, "another key goes on")
    await refused(stand, RevokeKey("cccccccccc", "grace", "", T0_US), "key")
    await stand.replace_owner()
    demand(stand.insights.key("aaaaaaaaaa") == row, "also after a new owner")


@check(3, "I15")
async def one_of_many_makes_the_first_key(stand: Stand) -> None:
    """Of many first keys in one tick one is stored; later ones are refused by `key` even if every key was revoked."""
    first = [_key(letter * 10, number, first=True) for number, letter in enumerate("abcde")]
    outcomes = await submit(stand, *first)
    demand([isinstance(each, Applied) for each in outcomes] == [True, False, False, False, False], "one of five")
    demand(_prefixes(stand) == ["a" * 10], "and it is the only one there")
    await done(stand, first[0])
    await done(stand, RevokeKey("a" * 10, "grace", "", T0_US))
    await refused(stand, first[1], "key")
    await done(stand, varied(first[1], first=False))
