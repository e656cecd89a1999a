"""Roles, grants, principals and the form of keys: what nobody granted is refused, and no damaged key is taken for a whole one."""

from __future__ import annotations

import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.core.apikeys import PREFIX_BYTES, SECRET_BYTES, SHAPE, assembled, digest_of, matches, prefix_of
from quarterdeck.core.errors import UsageError
from quarterdeck.core.identity import (
    EVERY_TENANT,
    MAX_GRANTS,
    ROLES,
    Action,
    Grant,
    Principal,
    Role,
    ServiceIdentity,
    checked_grants,
    checked_subject,
)

TENANTS = ("acme", "globex", "initech")
grants = st.builds(Grant, st.sampled_from((*TENANTS, EVERY_TENANT)), st.sampled_from(Role))
principals = st.builds(Principal, st.just("ada"), st.just("key"), st.lists(grants, max_size=5).map(tuple))
keys = st.builds(assembled, st.binary(min_size=10, max_size=10), st.binary(min_size=32, max_size=32))


def test_every_role_has_a_row_and_only_the_admin_has_all() -> None:
    assert set(ROLES) == set(Role)
    assert [role for role in Role if ROLES[role] == frozenset(Action)] == [Role.ADMIN]


@pytest.mark.parametrize(
    ("action", "roles"),
    [
        (Action.APPROVALS_DECIDE, {Role.APPROVER, Role.ADMIN}),
        (Action.RUNS_SUBMIT, {Role.SUBMITTER, Role.DELEGATE, Role.ADMIN}),
        (Action.RUNS_CONTROL, {Role.SUBMITTER, Role.DELEGATE, Role.OPERATOR, Role.ADMIN}),
        (Action.CONTENT_READ, {Role.SUBMITTER, Role.DELEGATE, Role.APPROVER, Role.ADMIN}),
        (Action.SWITCHES_SET, {Role.OPERATOR, Role.ADMIN}),
        (Action.KEYS_MANAGE, {Role.ADMIN}),
        (Action.ACT_FOR_OTHERS, {Role.DELEGATE, Role.ADMIN}),
    ],
)
def test_who_may_do_what_is_dangerous(action: Action, roles: set[Role]) -> None:
    assert {role for role in Role if action in ROLES[role]} == roles


def test_nobody_but_an_admin_both_names_the_requester_and_approves() -> None:
    both = {Action.ACT_FOR_OTHERS, Action.APPROVALS_DECIDE}
    assert [role for role in Role if ROLES[role] >= both] == [Role.ADMIN]


@given(principals, st.sampled_from(Action), st.sampled_from((*TENANTS, EVERY_TENANT, "", "ACME", "acme ", "*x")))
def test_what_nobody_granted_is_refused(who: Principal, action: Action, tenant: str) -> None:
    allowed = who.may(action, tenant)
    assert allowed == any(action in ROLES[grant.role] and grant.tenant in (tenant, "*") for grant in who.grants)
    if allowed:
        without = tuple(grant for grant in who.grants if action not in ROLES[grant.role] or grant.tenant not in (tenant, "*"))
        assert not msgspec.structs.replace(who, grants=without).may(action, tenant)


@given(principals, st.sampled_from(Action))
def test_the_tenants_of_an_action_are_those_where_it_is_allowed(who: Principal, action: Action) -> None:
    tenants = who.tenants(action)
    assert (tenants is None) == who.may(action, EVERY_TENANT)
    if tenants is not None:
        assert tenants == {tenant for tenant in TENANTS if who.may(action, tenant)}


@given(principals, st.lists(grants, min_size=1, max_size=4))
def test_nobody_gives_what_they_do_not_hold(giver: Principal, given_away: list[Grant]) -> None:
    if giver.may_give(given_away):
        taker = Principal("eve", "key", tuple(given_away))
        for action in Action:
            for tenant in (*TENANTS, EVERY_TENANT):
                assert giver.may(action, tenant) or not taker.may(action, tenant)
        assert all(giver.may(Action.KEYS_MANAGE, grant.tenant) for grant in given_away)


def test_a_grant_is_for_a_tenant_that_can_exist() -> None:
    for tenant in ("", "*a", "a b", "a\n", "\N{CYRILLIC SMALL LETTER A}cme", "a" * 129):
        with pytest.raises(UsageError, match=r"name\.invalid"):
            Grant(tenant, Role.VIEWER)


def test_grants_are_kept_once_and_are_bounded() -> None:
    twice = [Grant("b", Role.VIEWER), Grant("a", Role.VIEWER), Grant("b", Role.VIEWER)]
    assert checked_grants(twice) == (Grant("a", Role.VIEWER), Grant("b", Role.VIEWER))
    for wrong in ([], [Grant(f"t{number}", Role.VIEWER) for number in range(MAX_GRANTS + 1)]):
        with pytest.raises(UsageError, match=r"auth\.grants"):
            checked_grants(wrong)


def test_an_agent_has_a_name_of_its_own_that_nobody_else_can_have() -> None:
    assert ServiceIdentity("support", "triage").subject == "agent:support/triage"
    for subject in ("agent:support/triage", "AGENT:x", "Agent:"):
        with pytest.raises(UsageError, match=r"auth\.subject_reserved"):
            checked_subject(subject)
    for deck, agent in (("a/b", "c"), ("", "a"), ("a", ""), ("a b", "c")):
        with pytest.raises(UsageError, match=r"name\.invalid"):
            ServiceIdentity(deck, agent)
    with pytest.raises(UsageError, match=r"key\.invalid"):
        checked_subject("two\nlines")


@given(st.binary(min_size=10, max_size=10), st.binary(min_size=32, max_size=32))
def test_a_key_is_recognised_by_its_prefix_and_only_by_itself(prefix: bytes, secret: bytes) -> None:
    key = assembled(prefix, secret)
    other = assembled(prefix, bytes([secret[0] ^ 1]) + secret[1:])
    assert SHAPE.fullmatch(key) is not None
    assert prefix_of(key) == prefix_of(other) == key[3:13]
    assert matches(key, digest_of(key))
    assert not matches(other, digest_of(key))


@given(keys, st.data())
def test_a_damaged_key_is_no_key(key: str, data: st.DataObject) -> None:
    """One character wrong, two neighbours swapped, a part cut off or doubled, a bit flipped: none is taken for a whole key."""
    place = data.draw(st.integers(0, len(key) - 1))
    wrong = data.draw(st.sampled_from(string.ascii_letters + string.digits + "-_. \n"))
    flipped = chr(ord(key[place]) ^ (1 << data.draw(st.integers(0, 7))))
    damaged = {
        key[:place] + wrong + key[place + 1 :],
        key[:place] + key[place + 1 : place + 2] + key[place : place + 1] + key[place + 2 :],
        key[:place] + flipped + key[place + 1 :],
        key[:place],
        key[:place] + key[place + 1 :],
        key[:place] + key[place] + key[place:],
        key + "\n",
        " " + key,
        key.upper(),
    }
    assert {text for text in damaged - {key} if prefix_of(text) is not None} == set()


def test_a_key_needs_all_of_its_chance() -> None:
    for prefix, secret in ((9, 32), (11, 32), (10, 31), (10, 33), (0, 0)):
        with pytest.raises(ValueError, match="random bytes"):
            assembled(bytes(prefix), bytes(secret))
    assert (PREFIX_BYTES, SECRET_BYTES) == (10, 32)
