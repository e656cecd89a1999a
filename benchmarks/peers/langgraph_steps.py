"""LangGraph with its SQLite checkpointer (synchronous=FULL, durability="sync"): N threads, K nodes. usage: langgraph_steps.py FILE N K"""

import asyncio
import json
import sys
import time
from typing import TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph

path, runs, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])


class State(TypedDict):
    """What a thread keeps."""

    row: int
    steps: int
    text: str


async def write_row(state: State) -> dict:
    """One durable step."""
    return {"row": state["row"] + 1, "text": "x" * 180}


async def main() -> None:
    """Warm up, then measure."""
    graph = StateGraph(State)
    graph.add_node("write_row", write_row)
    graph.add_edge(START, "write_row")
    graph.add_conditional_edges("write_row", lambda state: "write_row" if state["row"] < state["steps"] else END)
    async with AsyncSqliteSaver.from_conn_string(path) as saver:
        await saver.conn.execute("PRAGMA journal_mode=WAL")
        await saver.conn.execute("PRAGMA synchronous=FULL")
        await saver.setup()
        app = graph.compile(checkpointer=saver)

        async def one(thread: str) -> None:
            config = {"configurable": {"thread_id": thread}, "recursion_limit": steps + 5}
            await app.ainvoke({"row": 0, "steps": steps, "text": ""}, config, durability="sync")

        await one("warm")
        began = time.perf_counter()
        await asyncio.gather(*(one(f"t{number}") for number in range(runs)))
        elapsed = time.perf_counter() - began
    print(json.dumps({"peer": "langgraph", "runs": runs, "steps": runs * steps, "steps_per_s": round(runs * steps / elapsed)}))


asyncio.run(main())
