"""A store whose file is taken away, or replaced by another, while it is in use accepts nothing more."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from quarterdeck import Context, Quarterdeck
from quarterdeck.core.errors import Unavailable
from quarterdeck.testing import ScriptedModel


@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
async def test_a_file_that_is_not_there_any_more_stops_the_store(tmp_path: Path, how: str) -> None:
    deck = Quarterdeck("moved")
    deck.agent("greet", model=ScriptedModel(lambda messages: "hello"))

    @deck.workflow("rests")
    async def rests(ctx: Context, payload: object) -> None:
        await ctx.sleep(3_600)

    file = tmp_path / "own.db"
    async with deck.start(file) as rt:
        assert (await (await rt.submit("greet", "x")).result(30.0)).status == "succeeded"
        resting = await rt.submit("rests", {})
        await resting.rest(30.0)
        if how == "replaced":
            shutil.copy(file, tmp_path / "copy.db")
            (tmp_path / "copy.db").replace(file)
        elif how == "moved":
            file.rename(tmp_path / "away.db")
        else:
            file.unlink()
        with pytest.raises(Unavailable) as told:
            await resting.result(30.0)
        assert told.value.code == "store.storage"
        with pytest.raises(Unavailable) as refused:
            await rt.submit("greet", "y")
        assert refused.value.code == "store.storage"
