"""Publishing a message as a tool: through the gate like any effect, and committed with its receipt."""

from __future__ import annotations

import typing

from quarterdeck.core.vocabulary import EffectClass
from quarterdeck.ports.tools import ToolContext
from quarterdeck.tools.function import FunctionTool


def publishing(topic: str, effect: EffectClass) -> FunctionTool:
    """The tool ``publish.<topic>``; its result is the name of the message.

    >>> publishing("orders", EffectClass.EXTERNAL).spec.name
    'publish.orders'
    """

    async def publish(body: typing.Any, ctx: ToolContext, message_key: str = "") -> str:
        ctx.publish(topic, body, key=message_key)
        return f"{ctx.run_id}:{ctx.call}:0"

    publish.__doc__ = f"Publish a message on the topic {topic}. Messages with one message_key leave in order."
    return FunctionTool(publish, effect=effect, name=f"publish.{topic}", transactional=True)
