"""Who may do what: nobody without a right, nothing of another tenant, no name but one's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from quarterdeck.core.errors import Unavailable, UsageError
from quarterdeck.core.identity import Principal
from quarterdeck.server import Settings, create_app
from quarterdeck.server.row import Row
from quarterdeck.server.table import TABLE
from tests.server.stage import PEOPLE, House, decided, open_house

PUBLIC = {"/healthz/startup", "/healthz/live", "/healthz/ready", "/health", "/openapi.json"}


def addressed(row: Row, **names: str) -> str:
    path = row.path
    for name in ("run_id", "approval", "task_id", "prefix"):
        path = path.replace(f"{{{name}}}", names.get(name, "x"))
    return path


def test_only_probes_and_the_description_are_public() -> None:
    assert {row.path for row in TABLE if row.action is None} == PUBLIC


async def test_every_operation_asks_who_and_for_its_own_right(house: House) -> None:
    for row in TABLE:
        await asks_who(house, row)


async def asks_who(house: House, row: Row) -> None:
    path, body = addressed(row), row.example
    if row.action is None:
        async with house.client(None) as client:
            assert (await client.request(row.verb, path)).status_code == 200
        return
    for name in (None, "mallory"):
        async with house.client(name) as client:
            answer = await client.request(row.verb, path, json=body)
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, 'Bearer realm="quarterdeck"')
    for name, principal in PEOPLE.items():
        async with house.client(name) as client:
            answer = await client.request(row.verb, path, json=body)
            lacks = principal.tenants(row.action) == frozenset()
            fits = answer.json()["code"] == "auth.forbidden" if lacks else answer.status_code != 401
            assert fits, (row.name, name, answer.text)


async def test_two_authorizations_are_none(house: House) -> None:
    async with house.client(None) as client:
        answer = await client.get("/v1/runs", headers=[("authorization", "Bearer ann"), ("authorization", "Bearer root")])
    assert (answer.status_code, answer.json()["code"]) == (400, "http.header")


async def test_another_tenants_run_does_not_exist(house: House) -> None:
    async with house.client("ann") as ann:
        run = (await ann.post("/v1/runs", json={"intent": "support"})).json()["run_id"]
        approval = await decided(house, run)
        second = (await ann.post("/v1/runs", json={"intent": "greet"})).json()["run_id"]
        cursor = (await ann.get("/v1/runs?limit=1")).json()["next"]
    async with house.client("zoe") as zoe:
        for row in TABLE:
            if "{" in row.path and row.action is not None and PEOPLE["zoe"].tenants(row.action):
                path = addressed(row, run_id=run, approval=str(approval["approval"]), task_id=run)
                headers = {"if-match": f'"{approval["digest"]}"'}
                answer = await zoe.request(row.verb, path, json=row.example, headers=headers)
                other = await zoe.request(row.verb, addressed(row), json=row.example, headers=headers)
                assert answer.status_code == other.status_code == 404, row.name
                assert answer.json()["code"] == other.json()["code"]
        assert (await zoe.get("/v1/runs")).json() == {"runs": [], "next": None}
        assert (await zoe.get("/v1/runs?tenant=acme")).json() == {"runs": [], "next": None}
        assert (await zoe.get("/v1/runs", params={"cursor": cursor})).json()["code"] == "cursor.unknown"
        assert (await zoe.post("/v1/runs", json={"intent": "greet", "caller": {"tenant": "acme"}})).json()[
            "code"
        ] == "auth.forbidden"
    async with house.client("root") as root:
        assert len((await root.get("/v1/runs?tenant=acme")).json()["runs"]) == 2
        assert (await root.get(f"/v1/runs/{second}")).status_code == 200
    assert house.runtime.show(run).row.status == "waiting"


CALLERS = [
    ("ann", None, 202, "acme", "ann"),
    ("ann", {"user": "ann"}, 202, "acme", "ann"),
    ("ann", {"user": "eve"}, 403, "", ""),
    ("ann", {"tenant": "globex", "user": "ann"}, 403, "", ""),
    ("deb", {"user": "eve"}, 202, "acme", "eve"),
    ("deb", {"user": "agent:shop/greet"}, 422, "", ""),
    ("svc", None, 403, "", ""),
    ("svc", {"tenant": "globex"}, 202, "globex", "svc"),
    ("svc", {"tenant": "globex", "user": "eve"}, 202, "globex", "eve"),
    ("root", {"tenant": "new", "user": "eve"}, 202, "new", "eve"),
    ("root", None, 202, "default", "root"),
]


async def test_a_run_acts_for_whom_its_caller_may(house: House) -> None:
    for who, caller, status, tenant, user in CALLERS:
        async with house.client(who) as client:
            answer = await client.post("/v1/runs", json={"intent": "greet"} | ({} if caller is None else {"caller": caller}))
            assert answer.status_code == status, (who, caller)
            if status == 202:
                assert (answer.json()["tenant"], answer.json()["user"]) == (tenant, user)


async def test_metadata_needs_one_right_and_contents_another(house: House) -> None:
    async with house.client("ann") as ann:
        run = (
            await ann.post("/v1/runs", json={"intent": "greet", "payload": "secret plum"}, headers={"prefer": "wait=20"})
        ).json()
        assert (await ann.get(f"/v1/runs/{run['run_id']}?content=false")).json()["result"] is None
    path = f"/v1/runs/{run['run_id']}"
    async with house.client("vic") as vic:
        for shown in (path, f"{path}/events", f"/tasks/{run['run_id']}", "/v1/runs"):
            answer = await vic.get(shown)
            assert answer.status_code == 200 and "plum" not in answer.text, shown
        for asked in (f"{path}?content=true", f"{path}/events?content=true"):
            assert (await vic.get(asked)).json()["code"] == "auth.forbidden"
        assert (await vic.post(f"{path}:cancel")).status_code == 403


async def test_switches_and_budgets_of_all_need_a_right_in_all(house: House) -> None:
    async with house.client("opa") as opa, house.client("root") as root:
        narrow = await opa.post("/v1/switches", json={"name": "freeze", "on": True, "reason": "x"})
        assert narrow.json()["code"] == "auth.forbidden"
        own = await opa.post("/v1/switches", json={"name": "deny_tenant:acme", "on": True, "reason": "x"})
        assert (own.status_code, own.json()["switches"]) == (200, ["deny_tenant:acme"])
        other = await opa.post("/v1/switches", json={"name": "deny_tenant:globex", "on": True, "reason": "x"})
        assert other.json()["code"] == "auth.forbidden"
        silent = await root.post("/v1/switches", json={"name": "freeze", "on": True, "reason": ""})
        assert (silent.status_code, silent.json()["code"]) == (422, "reason.missing")
        unknown = await root.post("/v1/switches", json={"name": "explode", "on": True, "reason": "x"})
        assert unknown.json()["code"] == "switch.unknown"
        both = await root.post("/v1/switches", json={"name": "deny_tenant:globex", "on": True, "reason": "x"})
        assert both.json()["switches"] == ["deny_tenant:acme", "deny_tenant:globex"]
        assert (await opa.get("/v1/switches")).json()["switches"] == ["deny_tenant:acme"]
        await root.post("/v1/switches", json={"name": "deny_tenant:acme", "on": False, "reason": "x"})
        assert (await opa.get("/v1/switches")).json()["switches"] == []
        async with house.client("ann") as ann:
            await ann.post("/v1/runs", json={"intent": "greet"}, headers={"prefer": "wait=20"})
        assert {row["account"] for row in (await opa.get("/v1/budgets")).json()["budgets"]} == {"tenant:acme"}
        assert {"all", "route:greet"} < {row["account"] for row in (await root.get("/v1/budgets")).json()["budgets"]}
        assert "globex_only" not in {row["intent"] for row in (await opa.get("/v1/routes")).json()["routes"]}
        for name in ("tools", "policies", "dependencies"):
            assert (await opa.get(f"/v1/{name}")).status_code == 200


class Broken:
    """An authenticator that cannot ask whoever it has to ask, or has a defect."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def authenticate(self, authorization: str | None) -> Principal:
        raise self.error


@pytest.mark.parametrize(("error", "status"), [(Unavailable("store.busy", "later"), 503), (RuntimeError("plum"), 500)])
async def test_an_authenticator_that_fails_denies(tmp_path: Path, error: Exception, status: int) -> None:
    async with open_house(tmp_path, authenticator=Broken(error)) as house, house.client("root") as client:
        answer = await client.get("/v1/runs")
        assert answer.status_code == status and "plum" not in answer.text
        assert (await client.get("/healthz/live")).status_code == 200


async def test_without_authentication_nothing_is_served_unless_it_was_asked_for_on_loopback(tmp_path: Path, house: House) -> None:
    for settings in (Settings(), Settings(host="0.0.0.0", insecure_loopback=True)):  # noqa: S104
        with pytest.raises(UsageError, match=r"unauthenticated|exposed"):
            create_app(house.runtime, None, settings)
    (tmp_path / "free").mkdir()
    async with open_house(tmp_path / "free", Settings(insecure_loopback=True), None) as free, free.client(None) as client:
        run = (await client.post("/v1/runs", json={"intent": "support"})).json()
        assert (run["tenant"], run["user"]) == ("default", "anonymous")


async def test_a_caller_that_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    async with open_house(tmp_path, Settings(rate_per_s=0.01, burst=3)) as house, house.client("ann") as ann:
        assert [(await ann.get("/v1/runs")).status_code for _ in range(4)] == [200, 200, 200, 429]
        refused = await ann.get("/v1/runs")
        assert refused.json()["code"] == "http.rate"
        assert int(refused.headers["retry-after"]) > 50
        assert (await ann.get("/healthz/live")).status_code == 200
        async with house.client("bob") as bob:
            assert (await bob.get("/v1/runs")).status_code == 200
