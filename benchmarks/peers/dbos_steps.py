"""DBOS Transact on SQLite or PostgreSQL: N workflows at once, K steps each. usage: dbos_steps.py FILE|DSN N K"""

import asyncio
import json
import sys
import time

from dbos import DBOS

place, runs, steps = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
url = place if place.startswith("postgresql:") else f"sqlite:///{place}"
DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR", "run_admin_server": False})


@DBOS.step()
async def write_row(number: int) -> dict:
    """One durable step."""
    return {"row": number, "text": "x" * 180}


@DBOS.workflow()
async def flow(count: int) -> int:
    """One run."""
    for number in range(count):
        await write_row(number)
    return count


async def main() -> None:
    """Warm up, then measure."""
    DBOS.launch()
    await flow(2)
    began = time.perf_counter()
    await asyncio.gather(*(flow(steps) for _ in range(runs)))
    elapsed = time.perf_counter() - began
    print(json.dumps({"peer": "dbos", "runs": runs, "steps": runs * steps, "steps_per_s": round(runs * steps / elapsed)}))
    DBOS.destroy()


asyncio.run(main())
