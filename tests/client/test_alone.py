"""The client stands alone: whoever imports it loads nothing else of Quarterdeck."""

from __future__ import annotations

import subprocess
import sys

SEEN = """
import sys
import quarterdeck.client
print(*sorted(name for name in sys.modules if name.partition(".")[0] in FORBIDDEN or name.startswith("quarterdeck.")))
"""
FORBIDDEN = {"apsw", "cedarpy", "openai", "starlette", "uvicorn", "typer", "pydantic", "orjson"}


def test_nothing_else_is_loaded() -> None:
    code = SEEN.replace("FORBIDDEN", repr(FORBIDDEN))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = done.stdout.split()
    assert "quarterdeck.client.blocking" in loaded
    assert [name for name in loaded if name != "quarterdeck.client" and not name.startswith("quarterdeck.client.")] == []
