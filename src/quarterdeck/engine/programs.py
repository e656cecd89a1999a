"""An agent made ready to run: its instructions as a message, its tools as declarations, their size counted once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from quarterdeck.core.context import estimate
from quarterdeck.core.specs import AgentSpec, ToolSpec
from quarterdeck.ports.model import Message, ToolDeclaration


@dataclass(frozen=True, slots=True)
class Program:
    """What is the same for every run of an agent. ``fixed_tokens`` is the size of the instructions and the declarations."""

    spec: AgentSpec
    system: Message | None
    declarations: dict[str, ToolDeclaration]
    fixed_tokens: int


def prepare(spec: AgentSpec, tools: Sequence[ToolSpec]) -> Program:
    """The program of an agent whose tools have these manifests."""
    declarations = {tool.name: ToolDeclaration(tool.name, tool.description, tool.input_schema) for tool in tools}
    size = estimate(spec.instructions) + sum(
        estimate(item.description) + -(-len(item.parameters) // 4) for item in declarations.values()
    )
    system = Message("system", spec.instructions) if spec.instructions else None
    return Program(spec, system, declarations, size)
