"""Logs for machines and for people: one JSON object a line, or plain text; always on stderr, never with contents.

>>> log_settings({"level": "debug"}, {}).level
'debug'
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal

import msgspec

from quarterdeck.core.errors import UsageError

VARIABLES = "QUARTERDECK_LOG_"

_encoder = msgspec.json.Encoder()


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much is logged, and in which form."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["text", "json"] = "text"


class JsonLines(logging.Formatter):
    """One JSON object per record: time (UTC, RFC 3339), level, logger, message, and the error's type and traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["traceback"] = self.formatException(record.exc_info)
        return _encoder.encode(line).decode()


def log_settings(table: Mapping[str, object], environment: Mapping[str, str]) -> LogSettings:
    """The settings of a file's table, overridden by ``QUARTERDECK_LOG_*``; raises :class:`UsageError` (``config.invalid``)."""
    named = {name.removeprefix(VARIABLES).lower(): value for name, value in environment.items() if name.startswith(VARIABLES)}
    try:
        return msgspec.convert({**table, **named}, LogSettings)
    except msgspec.ValidationError as error:
        raise UsageError("config.invalid", f"[log] or {VARIABLES}*: {error}") from None


def start_logging(settings: LogSettings) -> None:
    """Send every logger's records to stderr in the form that was chosen, instead of whatever was set before."""
    handler = logging.StreamHandler(sys.stderr)
    if settings.format == "json":
        handler.setFormatter(JsonLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
