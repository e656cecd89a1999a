"""``ask_a_human``: the program that every deck has. A person takes over what no agent may do now."""

from __future__ import annotations

from quarterdeck.engine.workflows.context import Context

ASK_A_HUMAN = "ask_a_human"
"""The name of the program, and of its route."""


async def ask_a_human(ctx: Context, asked: object = None) -> str:
    """Show a person what was asked for, and wait for the answer as rows: a day, then another person for a day. The reason that comes with
    a yes is the reply; a no, or nobody, ends the run as refused.
    """
    answer = await ctx.approve(ASK_A_HUMAN, asked, timeout="24h", on_timeout="escalate")
    answer.require()
    return answer.reason or f"{answer.by} takes care of it"
