"""A server that is open for the length of a test, and both clients behind one face."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.client.hands import KINDS, Hands
from tests.server.stage import House, open_house


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path) as opened:
        yield opened


@pytest.fixture(params=KINDS)
def hands(request: pytest.FixtureRequest) -> Hands:
    return Hands(request.param)
