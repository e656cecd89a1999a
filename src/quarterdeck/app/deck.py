"""The deck: tools, models, agents, routes, policies and budgets, as an author declares them.

A deck is only a description; :meth:`Quarterdeck.start` makes a runtime of it. Declaring something twice, naming something that does
not exist, or an impossible combination is an error when it is declared or when the deck starts, not when a customer's run needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from quarterdeck.app.budgets import Budget, overlaid, seconds
from quarterdeck.app.words import word
from quarterdeck.core.contract import DEFAULT_LIMITS, OUTPUT_RESERVE, Limits, checked_name
from quarterdeck.core.dependency import DependencyPolicy
from quarterdeck.core.errors import UsageError
from quarterdeck.core.labels import Confidentiality, Integrity
from quarterdeck.core.specs import AgentSpec, Degrade, RouteSpec
from quarterdeck.core.vocabulary import Autonomy, EffectClass, Mode, Priority, Risk
from quarterdeck.engine.workflows.program import Function, require_workflow, source_hash
from quarterdeck.ports.model import Model
from quarterdeck.ports.tools import Tool
from quarterdeck.tools.compensating import Compensation
from quarterdeck.tools.function import FunctionTool

if TYPE_CHECKING:
    from quarterdeck.app.runtime import Starting

F = TypeVar("F", bound=Callable[..., object])
W = TypeVar("W", bound=Function)
ALL_TOOLS = ("*",)
"""As the tools of a workflow: every tool of its deck."""
WORKFLOW_LIMITS = Limits(depth=5, hops=10)
"""The caps of a workflow that says nothing: its code decides how much it does."""
_DEFAULT_MODES = RouteSpec("default", "default").modes


class Quarterdeck:
    """Everything that a runtime needs to know, by name."""

    def __init__(self, name: str) -> None:
        self.name = checked_name("deck", name)
        caller = sys._getframe(1).f_globals.get("__file__")
        self.root = Path(caller).resolve().parent if caller else Path.cwd()
        self.tools: dict[str, Tool] = {}
        self.models: dict[str, Model] = {}
        self.agents: dict[str, AgentSpec] = {}
        self.routes: dict[str, RouteSpec] = {}
        self.policies: dict[str, str] = {}
        self.accounts: dict[str, Limits] = {}
        self.dependencies: dict[str, DependencyPolicy] = {}
        self.workflows: dict[str, Function] = {}
        self.compensations: dict[str, str] = {}
        self.names: dict[object, str] = {}

    def tool(
        self,
        *,
        effect: str,
        name: str | None = None,
        idempotent: bool = False,
        idempotent_for: str | float = "24h",
        reconcile: Callable[..., object] | None = None,
        compensate: Callable[..., object] | None = None,
        timeout: str | float = "30s",
        permissions: Sequence[str] = (),
        sandbox: str = "in_process",
        cost: str | float = 0,
        evidence: Sequence[str] = (),
        integrity: str = "trusted",
        confidentiality: str = "public",
        dependency: DependencyPolicy | None = None,
    ) -> Callable[[F], F]:
        """Declare a typed function as a tool; the function itself is returned unchanged and can be tested as it is.

        ``effect`` is ``read``, ``write``, ``external`` or ``irreversible``; ``idempotent`` promises at most one effect per
        ``ctx.idempotency_key``; ``reconcile`` finds out afterwards whether an effect happened; ``evidence`` names tools that must
        have succeeded in the run before. ``cost`` is the most that one call costs, in dollars.
        """
        from quarterdeck.app.budgets import microusd

        def declare(function: F) -> F:
            made = FunctionTool(
                function,
                effect=word(EffectClass, effect),
                name=name,
                idempotent=idempotent,
                idempotent_for_s=int(seconds(idempotent_for)),
                reconcile=reconcile,
                compensate=compensate,
                timeout_s=seconds(timeout),
                permissions=tuple(permissions),
                sandbox=sandbox,
                cost_microusd=microusd(cost),
                evidence=tuple(evidence),
                integrity=word(Integrity, integrity),
                confidentiality=word(Confidentiality, confidentiality),
            )
            self.add_tool(made, dependency)
            self.names[function] = made.spec.name
            if compensate is not None:
                undoing = Compensation(made, compensate)
                self.add_tool(undoing, dependency)
                self.compensations[made.spec.name] = undoing.spec.name
            return function

        return declare

    def add_tool(self, tool: Tool, dependency: DependencyPolicy | None = None) -> None:
        """Add a tool that is not a plain function."""
        spec = tool.spec
        if spec.name in self.tools:
            raise UsageError("tool.twice", f"a tool {spec.name!r} exists already; give this one another name")
        self.tools[spec.name] = tool
        policy = dependency or DependencyPolicy.for_tool(spec.idempotent or spec.effect is EffectClass.READ)
        self.dependencies[f"tool:{spec.name}"] = msgspec.structs.replace(policy, timeout_s=spec.timeout_s)

    def model(self, name: str, model: Model, dependency: DependencyPolicy | None = None) -> Model:
        """Name a model, so that agents can ask for it."""
        if checked_name("model", name) in self.models:
            raise UsageError("model.twice", f"a model {name!r} exists already; give this one another name")
        self.models[name] = model
        self.dependencies[f"model:{name}"] = dependency or DependencyPolicy.for_model()
        return model

    def agent(
        self,
        name: str,
        *,
        model: str | Model,
        instructions: str | Path = "",
        tools: Sequence[str | Callable[..., object]] = (),
        autonomy: str = Autonomy.BOUNDED_AUTONOMOUS,
        risk: str = Risk.LOW,
        budget: Budget | None = None,
        max_output_tokens: int = OUTPUT_RESERVE,
        degrade: Degrade | None = None,
        parallel: bool = True,
    ) -> AgentSpec:
        """Declare an agent: a loop around a model that may name these tools. Its default route has the same name.

        ``instructions`` is the system prompt, or the path of a ``.md`` or ``.txt`` file beside the module that made the deck.
        """
        if checked_name("agent", name) in self.agents:
            raise UsageError("agent.twice", f"an agent {name!r} exists already; give this one another name")
        if not isinstance(model, str):
            self.model(name, model)
            model = name
        spec = AgentSpec(
            name,
            model,
            self._text(instructions),
            tuple(self._tool_name(tool) for tool in tools),
            word(Autonomy, autonomy),
            word(Risk, risk),
            overlaid(DEFAULT_LIMITS, budget.limits() if budget is not None else Limits()),
            max_output_tokens,
            degrade,
            parallel,
        )
        self.agents[name] = spec
        if name not in self.routes:
            self.routes[name] = RouteSpec(name, name)
        return spec

    def workflow(
        self,
        name: str,
        *,
        tools: Sequence[str | Callable[..., object]] | None = None,
        autonomy: str = Autonomy.BOUNDED_AUTONOMOUS,
        risk: str = Risk.LOW,
        budget: Budget | None = None,
    ) -> Callable[[W], W]:
        """Declare an async function of a :class:`Context` as a workflow: it survives crashes, and waits as rows. Its default route has
        the same name; the function itself is returned unchanged.

        ``tools`` are those that it may call, by default all that the deck has when it starts.
        """

        def declare(function: W) -> W:
            require_workflow(function)
            if checked_name("workflow", name) in self.agents:
                raise UsageError("workflow.twice", f"a program {name!r} exists already; give this one another name")
            self.agents[name] = AgentSpec(
                name,
                "",
                "",
                ALL_TOOLS if tools is None else tuple(self._tool_name(tool) for tool in tools),
                word(Autonomy, autonomy),
                word(Risk, risk),
                overlaid(WORKFLOW_LIMITS, budget.limits() if budget is not None else Limits()),
                program=source_hash(function),
            )
            self.workflows[name] = function
            self.names[function] = name
            if name not in self.routes:
                self.routes[name] = RouteSpec(name, name, modes=(Mode.DURABLE_WORKFLOW, *_DEFAULT_MODES))
            return function

        return declare

    def complete(self) -> None:
        """What is only known when everything was declared: the tools of workflows, and what undoes them. Harmless to repeat."""
        for name in self.workflows:
            agent = self.agents[name]
            tools = tuple(self.tools) if agent.tools == ALL_TOOLS else agent.tools
            self.agents[name] = msgspec.structs.replace(agent, tools=self._with_undoing(tools))
        for intent, route in self.routes.items():
            if route.tools is not None:
                self.routes[intent] = msgspec.structs.replace(route, tools=self._with_undoing(route.tools))

    def route(
        self,
        intent: str,
        program: AgentSpec | str | Callable[..., object],
        *,
        owner: str = "unowned",
        tenants: str | Sequence[str] = "*",
        task_class: str = "standard",
        risk: str | None = None,
        autonomy: str | None = None,
        modes: Sequence[Mode] | None = None,
        tools: Sequence[str | Callable[..., object]] | None = None,
        budget: Budget | None = None,
        priority: str = Priority.STANDARD,
        approval_timeout: str | float = "24h",
    ) -> RouteSpec:
        """Lead an intent to a program. What a route says tightens or replaces what the program says; see the docs for precedence.

        ``priority`` is ``interactive``, ``standard`` or ``batch``: which runs are begun first when more are ready than can be driven.
        """
        name = (
            program if isinstance(program, str) else program.name if isinstance(program, AgentSpec) else self.names.get(program)
        )
        if name is None:
            raise UsageError(
                "workflow.undeclared", f"{program!r:.80} is no program of this deck; decorate it with @deck.workflow(…)"
            )
        workflow = name in self.workflows
        usual = (Mode.DURABLE_WORKFLOW, *_DEFAULT_MODES) if workflow else _DEFAULT_MODES
        if intent in self.routes and self.routes[intent] != RouteSpec(intent, intent, modes=usual):
            raise UsageError("route.twice", f"a route {intent!r} exists already; give this one another name")
        spec = RouteSpec(
            checked_name("route", intent),
            name,
            owner=owner,
            task_class=task_class,
            risk=None if risk is None else word(Risk, risk),
            autonomy=None if autonomy is None else word(Autonomy, autonomy),
            modes=tuple(modes) if modes is not None else usual,
            tenants=(tenants,) if isinstance(tenants, str) else tuple(tenants),
            limits=budget.limits() if budget is not None else Limits(),
            tools=None if tools is None else tuple(self._tool_name(tool) for tool in tools),
            priority=word(Priority, priority),
            approval_timeout_s=max(1, int(seconds(approval_timeout))),
        )
        self.routes[intent] = spec
        return spec

    def policy(self, source: str | Path | Mapping[str, str], name: str = "policies") -> None:
        """Add Cedar policies: text, a ``Path`` of a ``.cedar`` file or of a folder of them, or a mapping of names to texts.

        A ``str`` is text, unless it is one line that ends in ``.cedar``. One that holds no policy, such as the name of a folder, is
        refused (``policy.no_text``); so is what adds nothing, because a deck without policies permits everything, and a second set
        under a name that is taken, because it would replace the first.
        """
        added = self._policy_texts(source, name)
        if not added:
            raise UsageError("policy.none", f"there are no policies in {str(source)[:200]!r}; a folder must hold *.cedar files")
        taken = sorted(added.keys() & self.policies.keys())
        if taken:
            raise UsageError("policy.twice", f"policies named {', '.join(taken)} exist already; give these other names")
        self.policies.update(added)

    def budget(self, account: str, budget: Budget) -> None:
        """Limit a shared account: ``all``, ``tenant:NAME``, ``tenant:*`` (each tenant for itself) or ``route:NAME``."""
        kind, _, name = account.partition(":")
        if not (account == "all" or (kind in ("tenant", "route") and name)):
            raise UsageError("account.unknown", f"{account!r} is no account; use all, tenant:NAME, tenant:* or route:NAME")
        self.accounts[account] = budget.limits()

    def start(self, store: str | Path | None = None, **options: object) -> Starting:
        """A runtime of this deck, as an async context manager: ``async with deck.start() as rt``.

        ``store`` is a path or ``sqlite:///path``; by default ``QUARTERDECK_STORE``, else ``quarterdeck.db`` in this folder.
        """
        from quarterdeck.app.runtime import Starting

        return Starting(self, store, **options)  # type: ignore[arg-type]

    def _policy_texts(self, source: str | Path | Mapping[str, str], name: str) -> dict[str, str]:
        if isinstance(source, Mapping):
            return dict(source)
        if isinstance(source, Path) or (source.endswith(".cedar") and "\n" not in source):
            path = self._path(Path(source))
            files = sorted(path.glob("*.cedar")) if path.is_dir() else [path]
            return {file.name: file.read_text("utf-8") for file in files}
        if "permit" not in source and "forbid" not in source:
            said = (
                f"{source[:80]!r} is text without a policy; to read a file or a folder, write deck.policy(Path({source[:80]!r}))"
            )
            raise UsageError("policy.no_text", said)
        return {f"{name}{len(self.policies) or ''}": source}

    def _with_undoing(self, tools: Sequence[str]) -> tuple[str, ...]:
        """These tools, and what undoes them."""
        undoing = [self.compensations[name] for name in tools if name in self.compensations]
        return tuple(dict.fromkeys((*tools, *undoing)))

    def _tool_name(self, tool: str | Callable[..., object]) -> str:
        if isinstance(tool, str):
            return tool
        name = self.names.get(tool)
        if name is None:
            shown = getattr(tool, "__name__", tool)
            raise UsageError("tool.undeclared", f"{shown} is not a tool of this deck; decorate it with @deck.tool(effect=…)")
        return name

    def _text(self, instructions: str | Path) -> str:
        if isinstance(instructions, Path) or (instructions.endswith((".md", ".txt")) and "\n" not in instructions):
            return self._path(Path(instructions)).read_text("utf-8").strip()
        return instructions

    def _path(self, path: Path) -> Path:
        for candidate in (path, self.root / path):
            if candidate.exists():
                return candidate
        raise UsageError("file.missing", f"{path} is neither in {self.root} nor in the present folder")
