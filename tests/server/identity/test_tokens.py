"""Tokens of an identity provider: good ones are accepted for what they say, and every known way to forge or stretch one is refused."""

from __future__ import annotations

import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import ECKey, RSAKey

from quarterdeck.core.errors import Unauthenticated, UsageError
from quarterdeck.core.identity import Action, Grant, Principal, Role
from quarterdeck.server.identity.issuer import ALGORITHMS, MAX_TOKEN
from quarterdeck.testing.clock import VirtualClock, run
from tests.server.identity import provider as idp
from tests.server.identity.provider import EC, ED, NOW_S, OTHER_RSA, RSA, Provider, b64, claims, header, signed, token

ALL = tuple(ALGORITHMS)


def accepted(text: str, **changed: Any) -> Principal:
    return run(idp.authenticator(**changed).authenticate(f"Bearer {text}"))


def refused(text: str, code: str = "auth.token_invalid", **changed: Any) -> Unauthenticated:
    with pytest.raises(Unauthenticated) as caught:
        accepted(text, **changed)
    assert caught.value.code == code
    assert not any(part in str(caught.value) for part in text.split(".") if len(part) > 8)
    return caught.value


GENERIC = "the token is not one that is accepted here; get one from the configured provider"


@pytest.mark.parametrize(("key", "algorithm"), [(RSA, "RS256"), (RSA, "PS512"), (EC, "ES256"), (ED, "Ed25519")])
def test_a_good_token_is_its_subject(key: Any, algorithm: str) -> None:
    assert accepted(token(key, algorithm), algorithms=ALL) == Principal("ada", "user", (Grant("acme", Role.APPROVER),))


def test_rules_alone_turn_claims_into_grants() -> None:
    who = accepted(token(groups=None, realm_access={"roles": ["ops", "approvers"]}, scope="openid runs:write", role="admin"))
    assert who.grants == (Grant("acme", Role.OPERATOR), Grant("acme", Role.SUBMITTER), Grant("globex", Role.OPERATOR))
    nobody = accepted(token(groups="approvers,admins", scope=["x"], realm_access="ops", roles=["admin"], tenant="*"))
    assert nobody.grants == ()
    assert not any(nobody.may(action, tenant) for action in Action for tenant in ("acme", "*"))
    odd = accepted(token(groups=[["approvers"], {"approvers": 1}, 7, None, True], realm_access={"roles": {"ops": True}}))
    assert odd.grants == ()


def test_a_client_of_its_own_is_a_service() -> None:
    assert accepted(token(sub="app")).kind == "service"
    assert accepted(token(sub="app", client_id=None, azp="app")).kind == "service"
    assert accepted(token(sub="ada", azp="app")).kind == "user"


def test_a_subject_is_kept_apart_by_its_prefix_and_is_never_an_agents() -> None:
    assert accepted(token(), subject_prefix="corp:").subject == "corp:ada"
    assert accepted(token(email="ada@acme.example"), subject_claim="email").subject == "ada@acme.example"
    refused(token(), subject_claim="email")
    refused(token(sub=None, email="ada@acme.example"), subject_claim="email")
    refused(token(sub="agent:support/triage"))
    refused(token(sub="two\nlines"))
    refused(token(sub="a" * 300))


NONE = [header(alg=name) for name in ("none", "None", "NONE", "nOnE", "")]


@pytest.mark.parametrize("head", NONE, ids=lambda head: f"alg {head['alg']!r}")
@pytest.mark.parametrize("signature", ["", "AA", "keep"])
def test_an_unsigned_token_is_refused(head: dict[str, Any], signature: str) -> None:
    parts = [b64(json.dumps(head)), b64(json.dumps(claims())), token().split(".")[2] if signature == "keep" else signature]
    assert refused(".".join(parts)).message == GENERIC


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
@pytest.mark.parametrize("form", ["PEM", "DER", "JWK", "modulus", "empty"])
def test_a_public_key_is_never_used_as_a_secret(algorithm: str, form: str) -> None:
    public = RSA.as_dict(private=False)
    secret = {
        "PEM": RSA.as_pem(private=False),
        "DER": RSA.as_der(private=False),
        "JWK": json.dumps(public).encode(),
        "modulus": str(public["n"]).encode(),
        "empty": b"\0",
    }[form]
    text = ".".join((b64(json.dumps(header(alg=algorithm))), b64(json.dumps(claims()))))
    signature = hmac.digest(secret, text.encode(), algorithm.replace("HS", "sha"))
    refused(f"{text}.{b64(signature)}", algorithms=ALL)


@pytest.mark.parametrize("head", [
    header(alg="PS256"), header(alg="RS512"), header(alg="ES256"), header(alg="ES256", kid="ec-1"), header(alg=["RS256"]), header(alg=None),
    header(alg="rs256"), header(alg="RS256 "), header(alg=256), header(kid="ec-1"), header(kid="ed-1"),
])  # fmt: skip
def test_the_algorithm_and_the_key_are_ours_to_choose(head: dict[str, Any]) -> None:
    refused(signed(head, claims()))
    refused(signed(head, claims()), algorithms=ALL)


def test_a_token_signed_with_an_algorithm_that_is_not_configured_is_refused() -> None:
    assert accepted(token(EC, "ES256"), algorithms=("ES256",)).subject == "ada"
    refused(token(EC, "ES256"))
    refused(token(RSA, "RS512"))


def test_a_key_published_for_one_algorithm_signs_with_no_other() -> None:
    mine = Provider()
    mine.answer = idp.published(RSA, alg="PS256", use="sig")
    refused(token(), provider=mine, algorithms=("RS256", "PS256"))
    assert accepted(token(RSA, "PS256"), provider=mine, algorithms=("RS256", "PS256")).subject == "ada"


@pytest.mark.parametrize("kid", [
    None, "", "rsa-2", "RSA-1", "rsa-1 ", "../../rsa-1", "/dev/null", "rsa-1' OR '1'='1", "rsa-1\u0000", "http://evil.example/key",
    "k" * 10_000, ["rsa-1"], {"kid": "rsa-1"}, 1, True,
])  # fmt: skip
def test_only_the_exact_name_of_a_published_key_will_do(kid: object) -> None:
    refused(signed(header(kid=kid), claims()))


def test_a_key_with_an_endless_name_is_not_looked_for() -> None:
    mine = Provider()
    refused(signed(header(kid="k" * 257), claims()), provider=mine)
    assert mine.asked == 0


def test_a_key_for_encryption_does_not_hide_its_namesake() -> None:
    mine = Provider()
    mine.answer = json.dumps({"keys": [{**RSA.as_dict(private=False), "use": "enc"}, RSA.as_dict(private=False)]}).encode()
    assert accepted(token(), provider=mine).subject == "ada"


@pytest.mark.parametrize("extra", [
    {"jku": "https://evil.example/keys"}, {"x5u": "https://evil.example/cert"}, {"jwk": OTHER_RSA.as_dict(private=False)},
    {"x5c": ["MIIB"]}, {"x5t": "AA"},
])  # fmt: skip
def test_a_token_brings_no_key(extra: dict[str, Any]) -> None:
    """A forged signature does not hold whatever key its header offers; a good one holds in spite of it, and nothing else is asked."""
    mine = Provider()
    refused(signed(header(**extra), claims(), OTHER_RSA), provider=mine)
    assert accepted(signed(header(**extra), claims()), provider=mine).subject == "ada"
    assert mine.asked == 2  # each authenticator asked the configured address, once


@pytest.mark.parametrize(
    "extra", [{"crit": ["exp"]}, {"crit": []}, {"crit": ["b64"], "b64": False}, {"b64": False}, {"b64": True}]
)
def test_headers_that_change_the_meaning_are_refused(extra: dict[str, Any]) -> None:
    refused(signed(header(**extra), claims()))


@pytest.mark.parametrize("kind", [None, "JWT", "jwt", "id+jwt", "logout+jwt", "dpop+jwt", "", "at+jwt+x", ["at+jwt"], 1])
def test_a_token_of_another_type_is_refused(kind: object) -> None:
    refused(signed(header(typ=kind), claims()))


def test_types_are_compared_as_media_types() -> None:
    for kind in ("at+jwt", "AT+JWT", "application/at+jwt"):
        assert accepted(signed(header(typ=kind), claims())).subject == "ada"
    assert accepted(signed(header(typ="JWT"), claims()), types=("at+jwt", "JWT")).subject == "ada"


@pytest.mark.parametrize("changed", [
    {"iss": None}, {"iss": "https://id.example/"}, {"iss": "https://ID.example"}, {"iss": "https://evil.example"}, {"iss": ""},
    {"iss": [idp.ISSUER]},
    {"aud": None}, {"aud": ""}, {"aud": []}, {"aud": "https://other.example"}, {"aud": ["https://other.example"]},
    {"aud": [[idp.AUDIENCE]]}, {"aud": {"a": idp.AUDIENCE}}, {"aud": idp.AUDIENCE + "/"}, {"aud": f"{idp.AUDIENCE} x"},
    {"sub": None}, {"sub": ""}, {"sub": 7}, {"sub": ["ada"]},
    {"exp": None}, {"exp": ""}, {"exp": str(NOW_S + 300)}, {"exp": True}, {"exp": [NOW_S + 300]},
    {"iat": None}, {"iat": str(NOW_S)}, {"iat": NOW_S + 31}, {"iat": NOW_S + 10**6}, {"nbf": NOW_S + 31}, {"nbf": "0"},
    {"nbf": NOW_S + 10**9},
    {"exp": NOW_S + 86_401}, {"exp": 2**53 - 1}, {"iat": 0}, {"iat": -(2**53) + 1},
])  # fmt: skip
def test_a_claim_that_does_not_fit_refuses_the_token(changed: dict[str, Any]) -> None:
    text = token(**changed)
    assert "genuine" in refused(text).message or "lives longer" in refused(text).message
    # Whoever cannot sign learns nothing about which claims would fit.
    assert refused(text[: text.rfind(".") + 1] + token().split(".")[2]).message == GENERIC


@pytest.mark.parametrize(("passed_s", "code"), [(0, None), (329, None), (330, "auth.expired"), (10**6, "auth.expired")])
def test_a_token_ends_with_its_expiry_and_the_leeway(passed_s: int, code: str | None) -> None:
    clock = VirtualClock()
    clock.advance(passed_s)
    if code is None:
        assert accepted(token(), clock=clock).subject == "ada"
    else:
        refused(token(), code, clock=clock)


def test_the_leeway_is_what_is_configured() -> None:
    assert accepted(token(iat=NOW_S + 30, nbf=NOW_S + 30)).subject == "ada"
    refused(token(exp=NOW_S - 1), "auth.expired", leeway_s=0)
    refused(token(iat=NOW_S + 1), leeway_s=0)


def test_one_of_several_audiences_is_enough() -> None:
    assert accepted(token(aud=["https://other.example", idp.AUDIENCE])).subject == "ada"


PLAIN = json.dumps(claims())[1:-1]


@pytest.mark.parametrize("body", [
    "{" + PLAIN + ', "sub": "root"}', '{"sub": "root", ' + PLAIN + "}", '{"s\\u0075b": "root", ' + PLAIN + "}",
    '{"exp": NaN, "iss": "x"}', '{"exp": 1e400}', '{"exp": ' + "9" * 400 + "}", "[]", '"ada"', "null", "", "{", "{" + PLAIN + "} x",
    '{"a": ' + "[" * 2_000 + "]" * 2_000 + "}", '{"a": "\\ud800"}',
])  # fmt: skip
def test_claims_that_two_readers_could_read_differently_are_refused(body: str) -> None:
    refused(signed(header(), body) if body else signed(header(), " "))


@pytest.mark.parametrize("head", [
    '{"alg": "none", "alg": "RS256", "kid": "rsa-1", "typ": "at+jwt"}', '{"alg": "RS256", "kid": "rsa-1", "typ": "at+jwt", "kid": "rsa-2"}',
    '{"alg": "RS256", "\\u0061lg": "none", "kid": "rsa-1", "typ": "at+jwt"}', "[]", "null", "{", "x",
])  # fmt: skip
def test_headers_that_two_readers_could_read_differently_are_refused(head: str) -> None:
    refused(signed(head, claims()))


def test_anothers_token_is_refused() -> None:
    """Signed by a key that is not published, under the name of one that is; or taken apart and put together from two tokens."""
    refused(signed(header(), claims(), OTHER_RSA))
    refused(signed(header(kid="rsa-2"), claims(), OTHER_RSA))
    mine, admins = token(groups=None), token(sub="root")
    refused(".".join((mine.split(".")[0], admins.split(".")[1], mine.split(".")[2])))


def test_a_key_on_another_curve_is_refused() -> None:
    wrong = ECKey.generate_key("P-384", {"kid": "ec-1"})
    mine = Provider(wrong)
    refused(token(EC, "ES256"), provider=mine, algorithms=ALL)
    assert accepted(token(wrong, "ES384"), provider=mine, algorithms=ALL).subject == "ada"


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 40, 200])
def test_a_cut_token_is_refused(cut: int) -> None:
    text = token()
    refused(text[:-cut])
    refused(text[cut:])


@pytest.mark.parametrize("text", ["a.b.c", "..", "a..c", ".a.b", "a.b.", "eyJ.eyJ.x", "a.b.c.d.e", "a.b", "=.=.="])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(Unauthenticated):
        accepted(text)


def test_a_huge_token_is_refused_before_it_is_read() -> None:
    mine = Provider()
    refused(token(pad="x" * MAX_TOKEN), provider=mine)
    assert mine.asked == 0
    assert accepted(token(pad="x" * 4_000)).subject == "ada"


@given(st.data())
def test_one_flipped_bit_is_refused(data: st.DataObject) -> None:
    """Anywhere: header, claims, signature, dots; also in the bits at the end of a segment that decoding would drop."""
    key, algorithm = data.draw(st.sampled_from([(RSA, "RS256"), (ED, "Ed25519")]))
    text = token(key, algorithm)
    place = data.draw(st.one_of(st.integers(0, len(text) - 1), st.just(len(text) - 1)))
    flipped = text[:place] + chr(ord(text[place]) ^ (1 << data.draw(st.integers(0, 6)))) + text[place + 1 :]
    with pytest.raises(Unauthenticated):
        accepted(flipped, algorithms=ALL)


@pytest.mark.parametrize("changed", [
    {"algorithms": ()}, {"algorithms": ("none",)}, {"algorithms": ("HS256",)}, {"algorithms": ("RS256", "HS256")}, {"issuer": ""},
    {"audience": ""}, {"types": ()}, {"types": ("",)}, {"leeway_s": 301}, {"leeway_s": -1}, {"max_lifetime_s": 0},
    {"max_lifetime_s": 86_401},
    {"key_set_url": "http://id.example/keys"}, {"key_set_url": "file:///etc/passwd"}, {"key_set_url": "https://user:pass@id.example/"},
    {"key_set_url": "https:///keys"}, {"subject_claim": ""},
])  # fmt: skip
def test_settings_that_would_accept_others_tokens_cannot_be_made(changed: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        idp.settings(**changed)


def test_short_and_secret_keys_are_not_used() -> None:
    public = {**RSA.as_dict(private=False)}
    assert RSAKey.import_key(public).kid == "rsa-1"
    for item in (
        {**public, "n": b64(b"\x01" * 128)}, {**RSA.as_dict(private=True)}, {**public, "use": "enc"}, {**public, "key_ops": ["sign"]},
        {**public, "kid": 1}, {**public, "kty": "oct", "k": "AAAA"}, {"kty": "oct", "k": b64("secret"), "kid": "rsa-1", "alg": "HS256"},
    ):  # fmt: skip
        mine = Provider()
        mine.answer = json.dumps({"keys": [item, EC.as_dict(private=False)]}).encode()
        refused(token(), provider=mine, algorithms=ALL)
