"""LangGraph with its checkpointer for SQLite (synchronous=FULL) or PostgreSQL (a pool of ten), durability="sync": N threads, K nodes.

usage: langgraph_steps.py FILE|DSN N K
"""

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

from langgraph.checkpoint.base import BaseCheckpointSaver
from langgraph.checkpoint.postgres.aio import AsyncPostgresSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool

place, runs, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


class State(TypedDict):
    """What a thread keeps."""

    row: int
    steps: int
    text: str


async def write_row(state: State) -> dict:
    """One durable step."""
    return {"row": state["row"] + 1, "text": "x" * 180}


@asynccontextmanager
async def opened() -> AsyncIterator[BaseCheckpointSaver]:
    """The checkpointer, as its own documentation sets it up for production."""
    if place.startswith("postgresql:"):
        options = {"autocommit": True, "prepare_threshold": 0, "row_factory": dict_row}
        async with AsyncConnectionPool(place, max_size=10, kwargs=options) as pool:
            saver = AsyncPostgresSaver(pool)
            await saver.setup()
            yield saver
    else:
        async with AsyncSqliteSaver.from_conn_string(place) as saver:
            await saver.conn.execute("PRAGMA journal_mode=WAL")
            await saver.conn.execute("PRAGMA synchronous=FULL")
            await saver.setup()
            yield saver


async def main() -> None:
    """Warm up, then measure."""
    graph = StateGraph(State)
    graph.add_node("write_row", write_row)
    graph.add_edge(START, "write_row")
    graph.add_conditional_edges("write_row", lambda state: "write_row" if state["row"] < state["steps"] else END)
    async with opened() as saver:
        app = graph.compile(checkpointer=saver)

        async def one(thread: str) -> None:
            config = {"configurable": {"thread_id": thread}, "recursion_limit": steps + 5}
            await app.ainvoke({"row": 0, "steps": steps, "text": ""}, config, durability="sync")

        await one(f"warm {os.getpid()}")
        began = time.perf_counter()
        await asyncio.gather(*(one(f"{os.getpid()} {number}") for number in range(runs)))
        elapsed = time.perf_counter() - began
    print(json.dumps({"peer": "langgraph", "runs": runs, "steps": runs * steps, "steps_per_s": round(runs * steps / elapsed)}))


asyncio.run(main())
