"""Switches as facts: what each kind stops, where, and until when; by the time of the decision and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from quarterdeck.core.controls import PLAIN, SWITCHES, Switch, from_rows, in_force, parsed, rows_of, switches_of
from quarterdeck.core.errors import QuarterdeckError, UsageError
from quarterdeck.core.vocabulary import ProposalKind

NAMES = st.sampled_from(["a", "b", ""])
SETS = st.builds(
    Switch,
    st.sampled_from([*SWITCHES, *PLAIN]),
    st.sampled_from(["a", "b"]),
    NAMES,
    NAMES,
    expires_at_us=st.none() | st.integers(1, 20),
).map(lambda one: replace(one, name="") if one.kind in PLAIN else one)
CODES = {
    "freeze": "switch.frozen",
    "stop_route": "switch.route_stopped",
    "deny_tenant": "switch.tenant_denied",
    "disable_tool": "switch.tool_disabled",
    "block_model": "switch.model_blocked",
}


def named(switch: Switch, kind: ProposalKind, name: str, tenant: str, route: str) -> bool:
    """Whether a switch speaks of this proposal, said once more in other words."""
    match switch.kind:
        case "disable_tool":
            return kind is ProposalKind.TOOL and name == switch.name
        case "block_model":
            return kind is ProposalKind.MODEL and name == switch.name
        case "stop_route":
            return route == switch.name
        case "deny_tenant":
            return tenant == switch.name
        case _:
            return switch.kind == "freeze"


@given(st.lists(SETS, max_size=4), st.sampled_from(list(ProposalKind)), *[st.sampled_from(["a", "b"])] * 3, st.integers(0, 21))
def test_what_stops_is_what_some_switch_in_force_there_says(
    switches: list[Switch], kind: ProposalKind, name: str, tenant: str, route: str, now_us: int
) -> None:
    controls = from_rows(1, tuple(switches))
    there = [one for one in switches if one.tenant in ("", tenant) and one.route in ("", route)]
    there = [one for one in there if one.expires_at_us is None or now_us < one.expires_at_us]
    codes = {CODES[one.kind] for one in there if one.kind in CODES and named(one, kind, name, tenant, route)}
    pins = {one.name for one in there if one.kind == "pin_model"}
    if kind is ProposalKind.MODEL and controls.pinned(tenant, route, now_us) not in ("", name):
        codes.add("switch.model_pinned")
    code = controls.stops(kind, name, tenant, route, now_us)
    assert code in codes or (code is None and not codes)
    assert (controls.pinned(tenant, route, now_us) in pins) == bool(pins)
    forced = any(one.kind == "force_approval" and one.name == name for one in there)
    assert controls.asks(name, tenant, route, now_us) == forced
    assert (controls.drains(tenant, route, now_us) is not None) == any(one.kind == "drain" for one in there)


@given(st.lists(SETS, max_size=5))
def test_what_is_stored_is_what_is_read(switches: list[Switch]) -> None:
    assert sorted(switches_of(rows_of(tuple(switches))), key=repr) == sorted(switches, key=repr)


def test_the_narrowest_pin_counts() -> None:
    wide, narrow = Switch("pin_model", "large"), Switch("pin_model", "small", tenant="acme", route="support")
    controls = from_rows(1, (wide, narrow))
    assert controls.pinned("acme", "support", 0) == "small"
    assert controls.pinned("acme", "other", 0) == "large"


def test_an_earlier_version_stored_names_only() -> None:
    assert switches_of('["disable_tool:refund","freeze"]') == (Switch("disable_tool", "refund"), Switch("freeze"))


def test_expiry_is_to_the_microsecond() -> None:
    one = Switch("freeze", expires_at_us=10)
    assert (in_force((one,), 9), in_force((one,), 10)) == ((one,), ())


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("explode", "switch.unknown"),
        ("disable_tool:", "switch.unknown"),
        ("freeze@color=red", "switch.scope"),
        ("freeze@tenant=", "switch.scope"),
        ("freeze@tenant=a,tenant=b", "switch.scope"),
        ("stop_route:x@route=y", "switch.scope"),
        ("deny_tenant:x@tenant=y", "switch.scope"),
        ("disable_tool:" + "x" * 300, "name.invalid"),
    ],
)
def test_what_means_nothing_is_refused(text: str, code: str) -> None:
    with pytest.raises(UsageError) as error:
        parsed(text)
    assert error.value.code == code
    assert isinstance(error.value, QuarterdeckError)


def test_a_key_is_read_as_it_is_written() -> None:
    for text in ("freeze", "drain@tenant=acme", "block_model:large@tenant=acme,route=support"):
        assert parsed(text).key == text
