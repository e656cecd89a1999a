"""What a deck refuses when it is declared, and what admission refuses because it would have no effect."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck import Budget, Quarterdeck, Refused, UsageError
from quarterdeck.app.admission import Admission, admission_of, envelope_of
from quarterdeck.app.clock import SystemClock, SystemEntropy
from quarterdeck.core.canonical import canonical
from quarterdeck.core.contract import Envelope, EnvelopeLabels
from quarterdeck.core.labels import Confidentiality, Integrity, Labels
from quarterdeck.core.specs import RouteSpec
from tests.app.desk import desk

PERMIT = "permit(principal, action, resource);"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "all.cedar").write_text(PERMIT)
    return tmp_path


@pytest.mark.parametrize("text", ["policies", "./policies", "policies/all", "", "// only a comment", "nowhere"])
def test_a_text_without_a_policy_is_refused_and_says_how_to_name_a_path(folder: Path, text: str) -> None:
    deck = Quarterdeck("d")
    with pytest.raises(UsageError, match=r"policy\.no_text") as caught:
        deck.policy(text)
    assert f"deck.policy(Path({text!r}))" in caught.value.message
    assert deck.policies == {}


def test_policies_come_as_text_file_folder_or_mapping(folder: Path) -> None:
    for source in (PERMIT, "policies/all.cedar", Path("policies/all.cedar"), Path("policies"), {"all": PERMIT}):
        deck = Quarterdeck("d")
        deck.policy(source)
        assert list(deck.policies.values()) == [PERMIT]


def test_policies_that_add_nothing_or_replace_others_are_refused(folder: Path) -> None:
    (folder / "empty").mkdir()
    deck = Quarterdeck("d")
    for nothing in (Path("empty"), {}):
        with pytest.raises(UsageError, match=r"policy\.none"):
            deck.policy(nothing)
    with pytest.raises(UsageError, match=r"file\.missing"):
        deck.policy(Path("nowhere"))
    deck.policy(Path("policies"))
    (folder / "empty" / "all.cedar").write_text("forbid(principal, action, resource);")
    with pytest.raises(UsageError, match=r"policy\.twice"):
        deck.policy(Path("empty"))
    deck.policy({"more.cedar": "forbid(principal, action, resource);"})
    assert len(deck.policies) == 2


LEVELS, GRADES = st.sampled_from(Integrity), st.sampled_from(Confidentiality)


def contract_of(envelope: Envelope, *, priority: str = "standard", payload: Labels | None = None):
    deck = desk()
    routes = {**deck.routes, "greets": msgspec.structs.replace(deck.routes["greets"], priority=priority, payload=payload)}
    admission = Admission(
        deck.name, routes, deck.agents, {n: t.spec for n, t in deck.tools.items()}, SystemClock(), SystemEntropy()
    )
    return admission.contract(envelope, "p", "b")[0]


def test_an_ordering_key_is_part_of_the_contract_and_must_be_one() -> None:
    assert contract_of(Envelope("greets", ordering_key="customer-1")).ordering_key == "customer-1"
    with pytest.raises(UsageError, match=r"key\.invalid"):
        contract_of(Envelope("greets", ordering_key="two\nlines"))


def test_what_an_envelope_has_no_field_for_is_refused() -> None:
    for field in ("on_busy", "version", "label"):
        with pytest.raises(msgspec.ValidationError, match=field):
            msgspec.convert({"intent": "greets", field: "x"}, Envelope)


@given(st.none() | st.builds(Labels, LEVELS, GRADES), st.none() | st.builds(EnvelopeLabels, LEVELS, GRADES))
def test_what_a_caller_says_of_a_payload_only_adds_to_what_its_route_says(
    route: Labels | None, asked: EnvelopeLabels | None
) -> None:
    found = contract_of(Envelope("greets", labels=asked), payload=route).labels or Labels()
    own, said = route or Labels(), asked or EnvelopeLabels()
    assert found.untrusted == (own.untrusted or said.integrity is Integrity.UNTRUSTED)
    assert found.confidentiality == max(own.confidentiality, said.confidentiality, key=list(Confidentiality).index)


def test_labels_are_two_known_words_and_nothing_else() -> None:
    for wrong in ({"integrity": "holy"}, {"team": "blue"}, ["untrusted"], "untrusted"):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert({"intent": "greets", "labels": wrong}, Envelope)
    with pytest.raises(UsageError, match=r"word\.unknown"):
        envelope_of("greets", source="holy")
    assert envelope_of("greets").labels is None


def test_a_key_that_was_used_before_there_were_labels_means_what_it_meant() -> None:
    def digest(envelope: Envelope) -> str:
        admission = admission_of(desk(), SystemClock(), SystemEntropy())
        key = admission.commit(*admission.contract(envelope, "p", "b"), envelope, 1).key
        assert key is not None
        return key.body_digest

    once = Envelope("greets", "you", idempotency_key="k")
    said = canonical({
        "intent": "greets", "payload": None, "run_id": None, "idempotency_key": None, "correlation_id": None, "thread_id": None,
        "ordering_key": None, "priority": None, "mode": None, "caller": {"tenant": "default", "user": "anonymous"},
        "budget": dict.fromkeys(("deadline_ms", "max_steps", "max_tools", "max_tokens", "max_context", "max_cost_usd")),
    })  # fmt: skip
    assert digest(once) == hashlib.sha256(said + b'"you"').hexdigest()
    assert digest(msgspec.structs.replace(once, labels=EnvelopeLabels(Integrity.UNTRUSTED))) != digest(once)


@pytest.mark.parametrize(
    ("route", "asked", "taken"),
    [
        ("interactive", None, "interactive"),
        ("interactive", "standard", "standard"),
        ("interactive", "batch", "batch"),
        ("standard", None, "standard"),
        ("standard", "interactive", "standard"),
        ("batch", None, "batch"),
        ("batch", "interactive", "batch"),
    ],
)
def test_a_run_has_the_priority_of_its_route_unless_the_caller_asks_for_less(route: str, asked: str | None, taken: str) -> None:
    assert contract_of(Envelope("greets", priority=asked), priority=route).priority == taken


def test_a_priority_is_one_of_the_words() -> None:
    with pytest.raises(UsageError, match=r"word\.unknown: 'urgent' is no Priority; use one of interactive, standard, batch"):
        contract_of(Envelope("greets", priority="urgent"))
    with pytest.raises(UsageError, match=r"word\.unknown"):
        contract_of(Envelope("greets"), priority="urgent")
    deck = desk()
    with pytest.raises(UsageError, match=r"word\.unknown"):
        deck.route("hello", "greets", priority="urgent")
    assert deck.route("hello", "greets", priority="batch") == RouteSpec("hello", "greets", priority="batch")


def test_a_budget_of_a_caller_names_only_what_an_envelope_can_limit() -> None:
    spelt = envelope_of("greets", budget=Budget(turns=3, usd="0.29", deadline="2s")).budget
    assert (spelt.max_steps, spelt.max_cost_usd, spelt.deadline_ms) == (3, "0.290000", 2_000)
    for name in ("model_calls", "retries", "repeats"):
        with pytest.raises(UsageError, match=rf"budget\.invalid: a caller cannot limit {name}"):
            envelope_of("greets", budget=Budget(**{name: 1}))


def test_a_payload_is_measured_in_the_bytes_that_are_stored() -> None:
    contract_of(Envelope("greets", "é" * 100_000))
    with pytest.raises(UsageError, match=r"json\.too_large"):
        contract_of(Envelope("greets", "é" * 140_000))
    with pytest.raises(UsageError, match=r"json\.encoding"):
        contract_of(Envelope("greets", "\ud800"))
    with pytest.raises(Refused, match=r"route\.mode"):
        contract_of(Envelope("greets", mode="event_triggered"))  # type: ignore[arg-type]
