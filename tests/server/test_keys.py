"""The door with the authenticator that it really has: keys of the store."""

from __future__ import annotations

from pathlib import Path

from quarterdeck.core.identity import Grant, Role
from quarterdeck.server import create_app
from quarterdeck.server.identity import LOCAL_OPERATOR, KeyAuthenticator, KeyCache, KeyRequest, create_key, revoke_key
from tests.server.stage import open_house


async def test_a_key_opens_the_door_until_it_is_revoked(tmp_path: Path) -> None:
    cache = KeyCache()
    async with open_house(tmp_path) as house, house.client(None) as client:
        runtime, submit = house.runtime, house.runtime._journal.submit
        insights, clock = runtime.insights, runtime.parts.clock
        request = KeyRequest("ci", "nightly", (Grant("acme", Role.SUBMITTER),))
        key = await create_key(submit, insights, clock, runtime.parts.entropy, request=request, by=LOCAL_OPERATOR)
        house.door._authenticator = create_app(runtime, KeyAuthenticator(insights, clock, cache))._authenticator

        headers = {"authorization": f"Bearer {key.text}"}
        run = await client.post("/v1/runs", json={"intent": "greet"}, headers=headers)
        assert (run.status_code, run.json()["tenant"], run.json()["user"]) == (202, "acme", "ci")
        assert (await client.get("/v1/approvals", headers=headers)).json()["code"] == "auth.forbidden"
        for wrong in (None, "Bearer", f"Bearer {key.text[:-1]}", f"Basic {key.text}"):
            refused = await client.get("/v1/runs", headers={} if wrong is None else {"authorization": wrong})
            assert (refused.status_code, refused.headers["www-authenticate"]) == (401, 'Bearer realm="quarterdeck"')

        await revoke_key(submit, insights, clock, prefix=key.info.prefix, by=LOCAL_OPERATOR, reason="leaked", cache=cache)
        revoked = await client.get("/v1/runs", headers=headers)
        assert (revoked.status_code, revoked.json()["code"]) == (401, "auth.revoked")
        assert key.text not in revoked.text
