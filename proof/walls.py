"""T08 and T09: what a door lets nobody in with, and what it shows nobody of another tenant.

*forged-credentials*: every operation that is not public, under every credential that is none: missing, cut, altered, revoked, expired,
of another issuer or audience, signed by another key, by no key, or with the public key as a secret. None may get an answer but a refusal.

*other-tenants*: everything that a tenant has (runs, approvals, messages, effects in doubt, dead letters, keys, switches, accounts, audit
rows), and callers of another tenant under each role and under all of them. Each operation is asked for by the names of what is there,
with the tenant as a filter, with its cursors, and in bodies. Nothing may be shown or changed; what is there is answered like what is not.

*Planted*: doors that lack one check each; every one must be found.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import tempfile
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, asynccontextmanager
from pathlib import Path
from time import perf_counter
from unittest.mock import patch

import httpx2
from joserfc import jws
from joserfc.jwk import RSAKey

from proof.result import Suite, SuiteResult
from quarterdeck import Quarterdeck, ToolFailure
from quarterdeck.app.clock import SystemClock
from quarterdeck.app.runtime import Runtime
from quarterdeck.core.apikeys import assembled
from quarterdeck.core.commit import Claim, Commit, Head, SettlePost, Taken, TakePosts
from quarterdeck.core.errors import Unauthenticated
from quarterdeck.core.identity import EVERY_TENANT, ROLES, Grant, Principal, Role
from quarterdeck.core.outbox import Post, lane_of
from quarterdeck.server import Settings, catalogue, create_app, listen, runs, serve
from quarterdeck.server.exchange import Exchange
from quarterdeck.server.identity import (
    LOCAL_OPERATOR,
    Authenticator,
    Chain,
    KeyAuthenticator,
    KeyRequest,
    create_key,
    keyring,
    revoke_key,
)
from quarterdeck.server.identity.issuer import OidcAuthenticator, OidcSettings
from quarterdeck.server.row import Row
from quarterdeck.server.table import TABLE
from quarterdeck.testing import ScriptedModel
from quarterdeck.testing.conformance.stand import note
from quarterdeck.testing.inline import InlineJournal
from quarterdeck.testing.samples import T0_US, admission

OURS, THEIRS = "acme", "globex"
MARK = "plum"
"""Is in everything that the tenant has."""
LETTER, MESSAGE = f"run_{MARK}_letter", f"msg_{MARK}_1"
SETTINGS = Settings(port=0, rate_per_s=1e6, burst=1_000_000)
ISSUER, AUDIENCE = "https://id.example", "https://deck.example"
Plant = Callable[[], AbstractContextManager[object]]


def deck() -> Quarterdeck:
    """Runs that ask a person, and runs whose effect nobody knows."""
    made = Quarterdeck("walls")

    @made.tool(effect="irreversible")
    async def pay(note: str) -> str:
        """Pay."""
        return "paid"

    @made.tool(effect="irreversible")
    async def ship(note: str) -> str:
        """Ship."""
        raise ToolFailure("carrier.silent", "no answer", done=None)

    made.agent("asks", model=ScriptedModel([[("pay", {"note": MARK})], "x"]), tools=[pay], autonomy="executes_after_approval")
    made.agent("ships", model=ScriptedModel([[("ship", {"note": MARK})], "x"]), tools=[ship])
    made.agent("task", model=ScriptedModel(lambda _: MARK))
    return made


async def seed(path: Path) -> None:
    """A dead letter and a dead message, as a store keeps them."""
    journal = InlineJournal(path)
    await journal.submit(admission(LETTER, tenant=OURS))
    await journal.submit(Claim("w1", 1, T0_US))
    posts = tuple([Post(name, lane_of(OURS, "t", "k"), "t", "k", MARK.encode()) for name in (MESSAGE, f"msg_{MARK}_2")])
    head = Head("failed", "blocked", "run.poison", release=True)
    await journal.submit(Commit(LETTER, 1, 1, 1, (note(MARK),), T0_US, head=head, outbox=posts))
    taken = await journal.submit(TakePosts(1, T0_US, 1))
    if not isinstance(taken, Taken):
        raise TypeError("there is a message to take")
    post = taken.posts[0]
    await journal.submit(SettlePost(post.number, post.lane, post.ticket, "dead", T0_US, 0, "webhook.gone"))
    await journal.close()


@asynccontextmanager
async def opened(make: Callable[[Runtime], Awaitable[Authenticator]]) -> AsyncIterator[tuple[str, Runtime]]:
    """A door on a loopback socket, and the runtime behind it."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "store.db"
        await seed(path)
        async with deck().start(path, drain_s=0.0) as runtime:
            url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
            app = create_app(runtime, await make(runtime), SETTINGS)
            serving = asyncio.create_task(serve(app, listener=listen(SETTINGS), ready=url.set_result))
            try:
                yield await url, runtime
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)


def addressed(row: Row, names: dict[str, str]) -> str:
    """An operation's path with these names in it."""
    path = row.path
    for name, value in names.items():
        path = path.replace(f"{{{name}}}", value)
    return f"{path}?follow=false" if row.lasting and row.verb == "GET" else path


# ------------------------------------------------------------------------------------------------------ forged-credentials


class _Later(SystemClock):
    """Two minutes on: a key for a minute has expired."""

    def now_us(self) -> int:
        return super().now_us() + 120_000_000


def _b64(part: bytes) -> bytes:
    return urlsafe_b64encode(part).rstrip(b"=")


def _tokens(key: RSAKey, other: RSAKey, now_s: int) -> tuple[str, dict[str, str]]:
    """A good token, and bad ones by what is wrong with them."""
    plain: dict[str, object] = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ada", "iat": now_s, "exp": now_s + 300}
    head: dict[str, object] = {"alg": "RS256", "kid": "k1", "typ": "at+jwt"}

    def made(key: object, algorithm: str = "RS256", claims: dict[str, object] | None = None, **changed: object) -> str:
        parts = [json.dumps(part).encode() for part in (head | changed, plain | (claims or {}))]
        text = b".".join([_b64(part) for part in parts])
        signature = jws.JWSRegistry.algorithms[algorithm].sign(text, key)
        return (text + b"." + _b64(signature)).decode()

    good = made(key)
    first, claims, signature = good.split(".")
    unsigned = b".".join([_b64(json.dumps(part).encode()) for part in (head | {"alg": "HS256"}, plain)])
    hashed = hmac.digest(key.as_pem(private=False), unsigned, "sha256")
    return good, {
        "expired": made(key, claims={"iat": now_s - 600, "exp": now_s - 300}),
        "not yet": made(key, claims={"nbf": now_s + 300}),
        "another issuer": made(key, claims={"iss": "https://evil.example"}),
        "another audience": made(key, claims={"aud": "https://other.example"}),
        "another key": made(other),
        "another type": made(key, typ="JWT"),
        "no algorithm": made(key, alg="none").rpartition(".")[0] + ".",
        "the public key as a secret": (unsigned + b"." + _b64(hashed)).decode(),
        "no such key": made(key, kid="k2"),
        "altered claims": f"{first}.{_b64(json.dumps(plain | {'sub': 'root'}).encode()).decode()}.{signature}",
        "cut": good[:-4],
        "without a signature": f"{first}.{claims}.",
    }


async def forged(quick: bool) -> tuple[int, list[str]]:
    """How many attempts there were, and those that succeeded."""
    clock = _Later()
    key, other = RSAKey.generate_key(2048, {"kid": "k1"}), RSAKey.generate_key(2048, {"kid": "k1"})
    published = json.dumps({"keys": [key.as_dict(private=False)]}).encode()

    async def fetch(_: str) -> bytes:
        return published

    good, bad = _tokens(key, other, clock.now_us() // 1_000_000)
    bad = {name: f"Bearer {token}" for name, token in bad.items()}

    async def make(runtime: Runtime) -> Authenticator:
        insights, entropy = runtime.insights, runtime.parts.entropy
        grant = (Grant(EVERY_TENANT, Role.ADMIN),)
        texts = {}
        for name, lifetime_s in (("good", None), ("expired", 60), ("revoked", None)):
            request = KeyRequest(name, name, grant, lifetime_s)
            made = await create_key(runtime.apply, insights, SystemClock(), entropy, request=request, by=LOCAL_OPERATOR)
            texts[name] = made.text
            if name == "revoked":
                await revoke_key(runtime.apply, insights, clock, prefix=made.info.prefix, by=LOCAL_OPERATOR, reason="leaked")
        whole = texts["good"]
        guessed = assembled(bytes(["abcdefghijklmnopqrstuvwxyz234567".index(letter) for letter in whole[3:13]]), bytes(32))
        bad.update({name: f"Bearer {texts[name]}" for name in ("expired", "revoked")})
        bad.update({"cut key": f"Bearer {whole[:-1]}", "another secret": f"Bearer {guessed}", "longer": f"Bearer {whole}x"})
        bad.update({"nothing": "", "no credential": "Bearer", "basic": f"Basic {whole}", "two in one": f"Bearer {whole} {whole}"})
        good_key.append(whole)
        oidc = OidcSettings(issuer=ISSUER, audience=AUDIENCE, key_set_url=f"{ISSUER}/keys")
        return Chain(KeyAuthenticator(insights, clock), OidcAuthenticator(oidc, clock, fetch))

    good_key: list[str] = []
    found: list[str] = []
    tried = 0
    async with opened(make) as (url, _), httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
        for credential in (good, good_key[0]):
            answer = await client.get("/v1/keys", headers={"authorization": f"Bearer {credential}"})
            if answer.status_code == 401:
                raise AssertionError(f"a good credential is refused: {answer.text}")
        names = {"run_id": LETTER, "task_id": LETTER, "approval": "a", "message": MESSAGE, "account": "all", "prefix": "p"}
        rows = [row for row in TABLE if row.action is not None]
        sent: dict[str, dict[str, str]] = {"none": {}} | {name: {"authorization": text} for name, text in bad.items()}
        for row in rows[:: 6 if quick else 1]:
            for name, headers in sent.items():
                tried += 1
                answer = await client.request(row.verb, addressed(row, names), json=row.example, headers=headers)
                if answer.status_code not in (401, 503) or MARK in answer.text:
                    found.append(f"{row.name} with {name}: {answer.status_code}")
    return tried, found


def _forgeries() -> tuple[Plant, ...]:
    async def any_token(self: OidcAuthenticator, authorization: str | None) -> Principal:
        return Principal("ada", "user", (Grant(EVERY_TENANT, Role.ADMIN),))

    return (
        lambda: patch.object(keyring, "matches", lambda key, digest: True),
        lambda: patch.object(_Later, "now_us", SystemClock.now_us),
        lambda: patch.object(OidcAuthenticator, "_check", lambda self, claims: None),
        lambda: patch.object(OidcAuthenticator, "authenticate", any_token),
    )


# ----------------------------------------------------------------------------------------------------------- other-tenants


class _ByName:
    """Callers of the other tenant, one per role and one with all of them."""

    people = {role.value: Principal(role.value, "user", (Grant(THEIRS, role),)) for role in ROLES} | {
        "all": Principal("all", "user", tuple([Grant(THEIRS, role) for role in ROLES])),
        "root": Principal("root", "user", (Grant(EVERY_TENANT, Role.ADMIN),)),
    }

    async def authenticate(self, authorization: str | None) -> Principal:
        name = (authorization or "").removeprefix("Bearer ")
        if name not in self.people:
            raise Unauthenticated("auth.unknown", "nobody")
        return self.people[name]


async def _named(_: Runtime) -> Authenticator:
    return _ByName()


def _state(runtime: Runtime) -> object:
    """Everything of the tenant that somebody could change."""
    insights = runtime.insights
    runs = [(row.run_id, row.seq) for row in insights.runs(tenants=[OURS], limit=100)]
    approvals = [(row.approval, row.status) for row in insights.approvals(status=None, tenants=[OURS], limit=100)]
    posts = [(row.message, row.status) for row in insights.posts(tenants=[OURS])]
    accounts = [(row.account, row.dimension, row.limit) for row in insights.accounts() if row.limit is not None]
    facts = [(row.name, row.value) for row in insights.facts()]
    keys = [(row.prefix, row.revoked_at_us) for row in insights.keys()]  # noqa: SIM118 - they are API keys
    return runs, approvals, posts, accounts, facts, keys, insights.letter(LETTER)


async def _furnish(client: httpx2.AsyncClient, runtime: Runtime) -> dict[str, str]:
    """Give the tenant one of everything; the names."""
    asks = await runtime.submit("asks", MARK, tenant=OURS, user=MARK, idempotency_key="k")
    ships = await runtime.submit("ships", MARK, tenant=OURS, user=MARK)
    await asks.rest()
    await ships.rest()
    root = {"authorization": "Bearer root"}
    grants = [{"tenant": OURS, "role": "viewer"}]
    key = await client.post("/v1/keys", json={"subject": MARK, "grants": grants, "label": MARK}, headers=root)
    switch = {"name": "force_approval:pay", "on": True, "reason": MARK, "tenant": OURS}
    made = await client.post("/v1/switches", json=switch, headers=root)
    await client.post(f"/v1/runs/{ships.id}:mark", json={"call": "t0.0", "reason": MARK}, headers=root)
    if key.status_code != 201 or made.status_code != 200:
        raise AssertionError((key.text, made.text))
    [approval] = runtime.approvals()
    return {
        "run_id": asks.id,
        "task_id": ships.id,
        "approval": approval.approval,
        "digest": approval.digest,
        "message": MESSAGE,
        "account": f"tenant:{OURS}",
        "prefix": key.json()["prefix"],
    }


BODIES: dict[str, list[dict[str, object]]] = {
    "submitRun": [{"intent": "task", "caller": {"tenant": OURS}}],
    "setSwitch": [
        {"name": f"deny_tenant:{OURS}", "on": True, "reason": "x"},
        {"name": "force_approval:pay", "on": False, "reason": "x", "tenant": OURS},
        {"name": "freeze", "on": True, "reason": "x"},
        {"name": "freeze", "on": True, "reason": "x", "preview": True},
    ],
    "makeKey": [{"subject": "x", "grants": [{"tenant": tenant, "role": "viewer"}]} for tenant in (OURS, "*")],
    "changeDependency": [{"name": "tool:pay", "change": {"slots": 1}, "reason": "x"}],
}
"""What is sent in bodies, where the body says whose it is."""


async def others(quick: bool) -> tuple[int, list[str]]:
    """How many attempts there were, and those that showed or changed something."""
    found: list[str] = []
    tried = 0
    async with opened(_named) as (url, runtime), httpx2.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
        names = await _furnish(client, runtime)
        cursors = await _cursors(client)
        before = _state(runtime)
        for name in ("all",) if quick else tuple(each for each in _ByName.people if each != "root"):
            client.headers = {"authorization": f"Bearer {name}", "if-match": f'"{names["digest"]}"'}
            for row in (each for each in TABLE if each.action is not None):
                attempts = _by_name(client, row, names) if "{" in row.path else _without_names(client, row, names, cursors)
                async for succeeded in attempts:
                    tried += 1
                    if succeeded:
                        found.append(f"{name}: {succeeded}")
        if _state(runtime) != before:
            found.append("something of the tenant has changed")
    return tried, found


async def _by_name(client: httpx2.AsyncClient, row: Row, names: dict[str, str]) -> AsyncIterator[str]:
    """What is there is asked for by its name, and must be answered like what is not there."""
    nothing = {name: "nothing" if name != "account" else "tenant:nobody" for name in names}
    missing = await client.request(row.verb, addressed(row, nothing), json=row.example)
    for run in (names["run_id"], names["task_id"], LETTER):
        there = await client.request(row.verb, addressed(row, names | {"run_id": run, "task_id": run}), json=row.example)
        hidden = there.status_code in (403, 404) and _said(there) == _said(missing)
        yield "" if hidden else f"{row.name} of what is not theirs: {there.status_code}"


async def _without_names(
    client: httpx2.AsyncClient, row: Row, names: dict[str, str], cursors: dict[str, str]
) -> AsyncIterator[str]:
    """Lists with the tenant as a filter and with its cursors, and bodies that say whose they are."""
    if row.request is not None:
        for body in BODIES.get(row.name, ()):
            answer = await client.request(row.verb, row.path, json=body)
            yield f"{row.name} {body}: {answer.status_code}" if answer.status_code < 300 else ""
        return
    cursor = cursors.get(row.path)
    for query in ("", f"?tenant={OURS}", *((f"?cursor={cursor}",) if cursor else ())):
        answer = await client.request(row.verb, row.path + query)
        shows = answer.status_code < 300 and any(secret in answer.text for secret in (*names.values(), MARK, f'"{OURS}"'))
        pages = "cursor" in query and answer.status_code < 300
        yield f"{row.name}{query}: {answer.status_code}" if shows or pages else ""


def _said(answer: httpx2.Response) -> tuple[int, str]:
    """Status and code of an answer."""
    refused = answer.headers.get("content-type") == "application/problem+json"
    return answer.status_code, str(answer.json()["code"]) if refused else ""


async def _cursors(client: httpx2.AsyncClient) -> dict[str, str]:
    """Cursors into lists where they name something of the first tenant."""
    found = {}
    for path in ("/v1/runs", "/v1/outbox"):
        page = (await client.get(f"{path}?limit=1", headers={"authorization": "Bearer root"})).json()
        found[path] = str(page["next"])
    return found


def _holes() -> tuple[Plant, ...]:
    def everywhere(self: Principal, action: object, tenant: str) -> bool:
        return any(action in ROLES[grant.role] for grant in self.grants)

    return (
        lambda: patch.object(Exchange, "tenants_for", lambda self, action: None),
        lambda: patch.object(Exchange, "sees", lambda self, action, tenant: True),
        lambda: patch.object(Principal, "may", everywhere),
        lambda: patch.object(Principal, "may_give", lambda self, grants: True),
        lambda: patch.object(catalogue, "tenant_of", lambda account: THEIRS),
        lambda: patch.object(runs, "opened", lambda cursor, exchange, tenants: runs.unsealed(cursor)),
    )


# ------------------------------------------------------------------------------------------------------------------ suites

Attack = Callable[[bool], Awaitable[tuple[int, list[str]]]]


def _suite(name: str, attack: Attack, plants: Callable[[], tuple[Plant, ...]]) -> Suite:
    async def once(quick: bool) -> tuple[int, list[str]]:
        return await attack(quick)

    def run(quick: bool) -> SuiteResult:
        began_s = perf_counter()
        tried, found = asyncio.run(once(quick))
        caught = 0
        for plant in plants():
            with plant():
                caught += bool(asyncio.run(once(True))[1])
        detail: dict[str, object] = {"found": found} if found else {}
        return SuiteResult(name, tried, len(found), len(plants()), caught, (perf_counter() - began_s) / 60, detail)

    return Suite(name, run)


SUITES = (_suite("forged-credentials", forged, _forgeries), _suite("other-tenants", others, _holes))
