"""The deck: tools, models, agents, routes, policies and budgets, as an author declares them.

A deck is only a description; :meth:`Quarterdeck.start` makes a runtime of it. Declaring something twice, naming something that does
not exist, or an impossible combination is an error when it is declared or when the deck starts, not when a customer's run needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from quarterdeck.app.budgets import Budget, checked_window, microusd, overlaid, seconds
from quarterdeck.app.declaring import answering, attention_of, lifetime_of, limit_of, policy_texts, terms_of, tiers_of
from quarterdeck.app.people import ASK_A_HUMAN, ask_a_human
from quarterdeck.app.routing import EVERY_ROUTE, Terms
from quarterdeck.app.telling import Target, channel_of, deliverer_of
from quarterdeck.app.words import word
from quarterdeck.core.contract import DEFAULT_LIMITS, OUTPUT_RESERVE, Limits, checked_name
from quarterdeck.core.dependency import DependencyPolicy
from quarterdeck.core.errors import UsageError
from quarterdeck.core.labels import NO_LABELS, Confidentiality, Integrity, Labels
from quarterdeck.core.notices import TOPIC_PREFIX, Channel
from quarterdeck.core.origins import checked_pattern
from quarterdeck.core.outbox import POST_RETRY
from quarterdeck.core.overrides import Change, changed
from quarterdeck.core.retry import RetryPolicy
from quarterdeck.core.specs import CANCEL_SUFFIX, AgentSpec, Compaction, Degrade, ModelTier, RouteSpec
from quarterdeck.core.tasks import AUTO, STANDARD, classify
from quarterdeck.core.vocabulary import Autonomy, EffectClass, Mode, OnBudget, Priority, Risk
from quarterdeck.core.windows import Attention, Lifetime, Pace, WindowLimit
from quarterdeck.delivery.function import FunctionDeliverer
from quarterdeck.engine.workflows.program import Function, require_workflow, source_hash
from quarterdeck.policy.source import within
from quarterdeck.ports.model import Model
from quarterdeck.ports.outbox import Deliverer, Message, Topic
from quarterdeck.ports.tools import Tool
from quarterdeck.tools.compensating import Compensation
from quarterdeck.tools.function import FunctionTool
from quarterdeck.tools.manifest import ManifestTool, Perform, manifest_spec, read_manifest
from quarterdeck.tools.publishing import publishing
from quarterdeck.tools.secrets import SecretiveTool, Vault, source_of

if TYPE_CHECKING:
    from quarterdeck.app.starting import Starting

F = TypeVar("F", bound=Callable[..., object])
W = TypeVar("W", bound=Function)
P = TypeVar("P", bound=Callable[[Message], object])
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
        self.terms: dict[tuple[str, str], Terms] = {}
        self.dependencies: dict[str, DependencyPolicy] = {}
        self.workflows: dict[str, Function] = {}
        self.compensations: dict[str, str] = {}
        self.names: dict[object, str] = {}
        self.classifier: Callable[[str], str] = classify
        self.trusted: list[str] = []
        self.periods: dict[tuple[str, str], Limits] = {}
        self.limits: list[WindowLimit] = []
        self.paces: list[Pace] = []
        self.attentions: list[Attention] = []
        self.lifetimes: list[Lifetime] = []
        self.vault = Vault()
        self.raising: set[str] = set()
        self.topics: dict[str, Topic] = {}
        self.channels: dict[str, tuple[Channel, Topic | Target]] = {}

    def tool(
        self, *, effect: str, name: str | None = None, idempotent: bool = False, idempotent_for: str | float = "24h",
        reconcile: Callable[..., object] | None = None, compensate: Callable[..., object] | None = None,
        cancel: Callable[..., object] | None = None, timeout: str | float = "30s", stale: str | float = 0,
        heartbeat_timeout: str | float | None = None, permissions: Sequence[str] = (), sandbox: str = "in_process",
        cost: str | float = 0, evidence: Sequence[str] = (), integrity: str = "trusted",
        confidentiality: str = "public", source: str | None = None, sensitivity: str | None = None,
        trusted_fields: Sequence[str] = (), sink: Sequence[str] | None = None, secrets: Sequence[str] = (),
        dependency: DependencyPolicy | None = None, transactional: bool = False,
        exclusive: str | Callable[..., str] | None = None,
    ) -> Callable[[F], F]:  # fmt: skip
        """Declare a typed function as a tool; the function itself is returned unchanged and can be tested as it is.

        ``effect`` is ``read``, ``write``, ``external`` or ``irreversible``; ``idempotent`` promises at most one effect per
        ``ctx.idempotency_key``; ``reconcile`` finds out afterwards whether an effect happened; ``evidence`` names tools that must
        have succeeded in the run before. With a ``heartbeat_timeout`` it calls ``ctx.heartbeat()`` at least as often, or is abandoned as
        after its ``timeout``. ``stale="10m"``: where a read fails, its last good answer to the same question is given instead,
        at most so old. ``cancel`` stops what a call has started elsewhere, when its run is cancelled; it is called
        with those of the call's arguments that it names, ``result`` and the context. ``cost`` is the most that one call costs, in dollars.

        ``transactional``: the function does what it does through ``ctx.execute`` and ``ctx.publish`` alone, and that is committed with
        its receipt. ``exclusive``: a template such as ``"invoice:{id}"``, or a function of the arguments (as a mapping): while a call
        with this key is performed, no other with it is.

        ``source`` is the integrity of what it returns (another name for ``integrity``), ``sensitivity`` how confidential is what a read
        returns or an effect touches, ``sink`` the arguments that say whom or what it reaches; see the guide on labels.
        """
        kind = word(EffectClass, effect)
        reads, level = kind is EffectClass.READ, None if sensitivity is None else word(Confidentiality, sensitivity)

        def declare(function: F) -> F:
            made = FunctionTool(
                function,
                effect=kind,
                name=name,
                idempotent=idempotent,
                idempotent_for_s=int(seconds(idempotent_for)),
                reconcile=reconcile,
                compensate=compensate,
                cancel=cancel,
                timeout_s=seconds(timeout),
                stale_s=seconds(stale),
                heartbeat_timeout_s=None if heartbeat_timeout is None else seconds(heartbeat_timeout),
                permissions=tuple(permissions),
                sandbox=sandbox,
                cost_microusd=microusd(cost),
                evidence=tuple(evidence),
                integrity=word(Integrity, integrity if source is None else source),
                confidentiality=level if level and reads else word(Confidentiality, confidentiality),
                trusted_fields=tuple(trusted_fields),
                sinks=None if sink is None else tuple(sink),
                touches=None if reads else level,
                secrets=tuple(secrets),
                transactional=transactional,
                exclusive=exclusive,
            )
            self._declared(made, function, compensate, cancel, dependency)
            return function

        return declare

    def _declared(
        self,
        made: FunctionTool,
        function: Callable[..., object],
        compensate: Callable[..., object] | None,
        cancel: Callable[..., object] | None,
        dependency: DependencyPolicy | None,
    ) -> None:
        self.add_tool(made, dependency)
        self.names[function] = made.spec.name
        if compensate is not None:
            undoing = Compensation(made, compensate)
            self.add_tool(undoing, dependency)
            self.compensations[made.spec.name] = undoing.spec.name
        if cancel is not None:
            self.add_tool(Compensation(made, cancel, CANCEL_SUFFIX), dependency)

    def add_tool(self, tool: Tool, dependency: DependencyPolicy | None = None) -> None:
        """Add a tool that is not a plain function."""
        spec = tool.spec
        if spec.name in self.tools:
            raise UsageError("tool.twice", f"a tool {spec.name!r} exists already; give this one another name")
        self.tools[spec.name] = SecretiveTool(tool, self.vault) if spec.secrets else tool
        policy = dependency or DependencyPolicy.for_tool(spec.repeatable)
        self.dependencies[f"tool:{spec.name}"] = msgspec.structs.replace(policy, timeout_s=spec.timeout_s)

    def manifest(
        self, source: str | Path | Sequence[object], perform: Perform, dependency: DependencyPolicy | None = None
    ) -> list[str]:
        """Declare tools of other people from a manifest (a JSON file, its path, or its contents); the names that it declares.

        ``perform(name, arguments, context)`` performs every one of them. What a manifest does not say is assumed to be dangerous: see
        :mod:`quarterdeck.tools.manifest`.
        """
        if isinstance(source, str | Path):
            source = read_manifest(self._path(Path(source)).read_bytes())
        tools = [ManifestTool(manifest_spec(item), perform) for item in source]
        for tool in tools:
            self.add_tool(tool, dependency)
        return [tool.spec.name for tool in tools]

    def secret(
        self, name: str, *, env: str | None = None, file: str | Path | None = None, call: Callable[[], str] | None = None
    ) -> None:
        """Declare a secret: an environment variable, a file, or a function that is asked each time. It is read when a tool that names it
        in ``secrets`` asks ``ctx.secrets[name].reveal()``, never before and by nobody else.
        """
        self.vault.declare(name, source_of(name, env, file, call))

    def trust(self, *values: str) -> None:
        """Let actions have these values whatever a run has read: exact ones, or ones that begin or end in a star (``*@example.com``,
        ``https://api.example.com/*``).
        """
        self.trusted.extend([checked_pattern(value) for value in values])

    def outbox(
        self,
        topic: str,
        deliverer: Deliverer | None = None,
        *,
        retry: RetryPolicy = POST_RETRY,
        timeout: str | float = "30s",
        effect: str = "external",
    ) -> Callable[[P], P]:
        """Declare who delivers the messages of a topic: a :class:`~quarterdeck.ports.outbox.Deliverer`, or the decorated function of a
        :class:`~quarterdeck.ports.outbox.Message`.

        That also makes the tool ``publish.<topic>``, which ``ctx.publish(topic, …)`` of a workflow calls; an agent may only if it names it.
        ``effect`` is that tool's class. After ``retry.max_attempts`` a message is dead: it stops its key until a person decides.
        """
        if checked_name("topic", topic) in self.topics or topic.startswith(TOPIC_PREFIX):
            raise UsageError("outbox.twice", f"a topic {topic!r} exists already; give this one another name")

        def declare(function: P) -> P:
            found = deliverer if deliverer is not None else FunctionDeliverer(function)
            self.topics[topic] = Topic(topic, found, retry, seconds(timeout))
            self.add_tool(publishing(topic, word(EffectClass, effect)))
            return function

        if deliverer is not None:
            declare(_delivers_nothing)
        return declare

    def notify(
        self,
        channel: str,
        target: Deliverer | Callable[[Message], object] | Target,
        *,
        owners: Sequence[str] = (),
        kinds: Sequence[str] = (),
        retry: RetryPolicy = POST_RETRY,
        timeout: str | float = "30s",
    ) -> None:
        """Tell somebody when an approval waits, is escalated or has expired, or a run is escalated: a webhook, an e-mail, a function.

        ``owners`` are those whose approvals it hears of (all, if none is named), ``kinds`` which of ``approval.waits``,
        ``approval.escalated``, ``approval.expired`` and ``run.escalated``. At least once; the message's name is always the same.
        """
        if channel in self.channels:
            raise UsageError("notices.twice", f"a channel {channel!r} exists already; give this one another name")
        made = channel_of(channel, tuple(owners), tuple(kinds))
        if isinstance(target, Target):
            self.channels[channel] = (made, target)
        else:
            self.channels[channel] = (made, Topic(made.topic, deliverer_of(target), retry, seconds(timeout)))

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
        model: str | Model | Mapping[str, str | Sequence[str]],
        instructions: str | Path = "",
        tools: Sequence[str | Callable[..., object]] = (),
        autonomy: str = Autonomy.BOUNDED_AUTONOMOUS,
        risk: str = Risk.LOW,
        budget: Budget | None = None,
        max_output_tokens: int = OUTPUT_RESERVE,
        degrade: Degrade | None = None,
        parallel: bool = True,
        compaction: Compaction | None = None,
        fallbacks: Sequence[str] = (),
    ) -> AgentSpec:
        """Declare an agent: a loop around a model that may name these tools. Its default route has the same name.

        ``fallbacks`` names models that are asked where this one fails or cannot serve, in order.
        ``compaction`` has older turns told by a summary when the transcript nears what the context may hold; without one they are left out.
        ``instructions`` is the system prompt, or the path of a ``.md`` or ``.txt`` file beside the module that made the deck. ``model`` is
        one model, or names by class of task (``{"simple": "small", "standard": ["large", "other"]}``): of the class that a run is found to
        be, the cheapest model that serves takes it, with at most 400 tokens an answer for ``simple``.
        """
        if checked_name("agent", name) in self.agents:
            raise UsageError("agent.twice", f"an agent {name!r} exists already; give this one another name")
        tiers: tuple[ModelTier, ...] = ()
        if isinstance(model, Mapping):
            tiers = tiers_of(name, model, max_output_tokens)
            model = next(tier for tier in tiers if tier.task_class == STANDARD).models[0]
        elif not isinstance(model, str):
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
            tiers=tiers,
            compaction=compaction,
            fallbacks=tuple(fallbacks),
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
        interrupts: Literal["collect", "raise"] = "collect",
    ) -> Callable[[W], W]:
        """Declare an async function of a :class:`Context` as a workflow: it survives crashes, and waits as rows. Its default route has
        the same name; the function itself is returned unchanged.

        ``tools`` are those that it may call, by default all that the deck has when it starts. ``interrupts="raise"``: what it waits for
        ends as :class:`Interrupted` when it is interrupted; otherwise it asks ``ctx.interrupts()``.
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
            if interrupts == "raise":
                self.raising.add(name)
            if name not in self.routes:
                self.routes[name] = RouteSpec(name, name, modes=(Mode.DURABLE_WORKFLOW, *_DEFAULT_MODES))
            return function

        return declare

    def complete(self) -> None:
        """What is only known when everything was declared: the tools of workflows, and what undoes them. Harmless to repeat."""
        wanted = {route.fallback for route in self.routes.values()}
        if ASK_A_HUMAN in wanted and ASK_A_HUMAN not in self.routes:
            self.workflow(ASK_A_HUMAN, tools=())(ask_a_human)
        for name in self.workflows:
            agent = self.agents[name]
            tools = tuple(self.tools) if agent.tools == ALL_TOOLS else agent.tools
            self.agents[name] = msgspec.structs.replace(agent, tools=self._with_undoing(tools))
        for name, agent in self.agents.items():
            self.agents[name] = msgspec.structs.replace(agent, tools=self._with_cancelling(agent.tools))
        for intent, route in self.routes.items():
            if route.tools is not None:
                self.routes[intent] = msgspec.structs.replace(route, tools=self._with_cancelling(self._with_undoing(route.tools)))
        for key, terms in self.terms.items():
            if terms.tools is not None:
                self.terms[key] = msgspec.structs.replace(terms, tools=self._with_cancelling(self._with_undoing(terms.tools)))

    def route(
        self, intent: str, program: AgentSpec | str | Callable[..., object], *, owner: str = "unowned",
        escalation: Sequence[str] = (), at_limit: Literal["stop", "pause"] = "stop",
        tenants: str | Sequence[str] = "*", task_class: str = AUTO, risk: str | None = None,
        autonomy: str | None = None, modes: Sequence[Mode] | None = None,
        tools: Sequence[str | Callable[..., object]] | None = None, budget: Budget | None = None,
        priority: str = Priority.STANDARD, approval_timeout: str | float = "24h", paging: str = "", refusal: str = "",
        fallback: AgentSpec | str | Callable[..., object] | None = None, on_budget: str = OnBudget.DEGRADE,
        latency: str | float | None = None, source: str = Integrity.TRUSTED, sensitivity: str = Confidentiality.PUBLIC,
        escalate_after: str | float | None = None, on_denial: str = "tell", on_expiry: str = "tell", quorum: int = 1,
        retention: str | float = "400d",
    ) -> RouteSpec:  # fmt: skip
        """Lead an intent to a program. What a route says tightens or replaces what the program says; see the docs for precedence.

        ``at_limit="pause"``: a run that reaches a limit of its own waits until it is raised; otherwise it stops with what it has.

        An approval is the ``owner``'s, and after each ``escalate_after`` the next one's in ``escalation``; ``quorum`` different people
        have to approve. ``on_denial`` and ``on_expiry`` are ``tell`` (the program goes on without it) or ``refuse`` (the run ends, and
        its sagas undo what they did).

        ``priority`` is ``interactive``, ``standard`` or ``batch``: which runs are begun first when more are ready than can be driven.
        ``owner`` answers for the route, ``paging`` is who is woken; ``refusal`` is what who is refused is told to do instead.
        ``fallback`` is the route, or the program, that takes its runs while a switch stops it. ``on_budget`` is what happens when a shared
        account above it has nothing left: new runs are taken all the same and end there with what they have (``degrade``), rest there until
        somebody raises it (``pause``), are refused (``refuse``), or go to the fallback (``reroute``). The name ``ask_a_human`` is there
        without being declared: a person takes over. ``latency`` is how long the caller of a ``sync`` run waits.
        ``source`` and ``sensitivity`` label what callers send: ``source="untrusted"`` for events whose contents others have written.
        ``retention`` is how long runs are kept after their end; then nothing is left of them.
        """
        name = self._program_name(program)
        labels = Labels(word(Integrity, source), word(Confidentiality, sensitivity))
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
            paging=paging,
            refusal=refusal,
            fallback=None if fallback is None else self._program_name(fallback),
            on_budget=word(OnBudget, on_budget),
            latency_ms=None if latency is None else max(1, int(seconds(latency) * 1_000)),
            payload=None if labels == NO_LABELS else labels,
            at_limit=at_limit,
            **answering(escalation, escalate_after, on_denial, on_expiry, quorum),
            retention_s=max(1, int(seconds(retention))),
        )
        self.routes[intent] = spec
        return spec

    def tenant(
        self, name: str, route: str = EVERY_ROUTE, *, autonomy: str | None = None, risk: str | None = None,
        tools: Sequence[str | Callable[..., object]] | None = None, budget: Budget | None = None,
    ) -> None:  # fmt: skip
        """Say what is otherwise for one tenant, on one route or on every one: authority is only tightened, a limit that is named replaces
        the route's. Raises :class:`UsageError` (``tenant.twice``, ``tenant.nothing``).
        """
        if (checked_name("tenant", name), route) in self.terms:
            raise UsageError("tenant.twice", f"tenant {name} has terms on {route!r} already; say everything at once")
        self.terms[name, route] = terms_of(
            name, autonomy, risk, None if tools is None else [*map(self._tool_name, tools)], budget
        )

    def task_classes(self, classifier: Callable[[str], str]) -> None:
        """Replace the rule that finds the class of a task: a quick function of the payload's text. See :mod:`quarterdeck.core.tasks`."""
        self.classifier = classifier

    def change_dependency(self, name: str, change: Change) -> None:
        """Change the declared policy of ``model:NAME`` or ``tool:NAME``, as a configuration file does; the same again changes nothing."""
        policy = self.dependencies.get(name)
        if policy is None:
            known = ", ".join(sorted(self.dependencies)) or "none"
            raise UsageError("dependency.unknown", f"no dependency is called {name[:80]!r}; there are: {known}")
        if change.isolated:
            raise UsageError(
                "dependency.isolated", f"{name} cannot be isolated for good; leave it out, or isolate it for a while"
            )
        self.dependencies[name] = changed(policy, change)

    def policy(
        self,
        source: str | Path | Mapping[str, str],
        name: str = "policies",
        *,
        tenant: str | None = None,
        route: str | None = None,
        shadow: bool = False,
    ) -> None:
        """Add Cedar policies: text, a ``Path`` of a ``.cedar`` file or of a folder of them, or a mapping of names to texts.

        A ``str`` is text, unless it is one line that ends in ``.cedar``. One that holds no policy, such as the name of a folder, is
        refused (``policy.no_text``); so is what adds nothing, because a deck without policies permits everything, and a second set
        under a name that is taken, because it would replace the first.

        A set for one ``tenant`` or ``route`` only speaks about their proposals. One in ``shadow`` is asked and journaled, never obeyed; a
        single policy with ``@shadow("…")`` is too.
        """
        for what, one in (("tenant", tenant), ("route", route)):
            if one is not None:
                checked_name(what, one)
        scoped = tenant is not None or route is not None or shadow
        added = policy_texts(source, f"{name}{len(self.policies) or ''}", self._path)
        if scoped:
            added = {each: within(text, tenant=tenant, route=route, shadow=shadow) for each, text in added.items()}
        if not added:
            raise UsageError("policy.none", f"there are no policies in {str(source)[:200]!r}; a folder must hold *.cedar files")
        taken = sorted(added.keys() & self.policies.keys())
        if taken:
            raise UsageError("policy.twice", f"policies named {', '.join(taken)} exist already; give these other names")
        self.policies.update(added)

    def budget(self, account: str, budget: Budget, *, per: str | None = None) -> None:
        """Limit a shared account: ``all``, or ``tenant:NAME``, ``route:NAME``, ``agent:NAME``, ``thread:TENANT/ID``; ``*`` as the name is
        each for itself. ``per`` is ``minute``, ``hour``, ``day``, ``week`` or ``month`` (of the calendar, in UTC): then it begins anew
        with each, beside what holds for ever. ``deadline`` of a thread is how long all its runs together may last, from the first one's
        admission. ``approver:NAME`` with ``Budget(approvals=…)`` and ``per``: how often that owner is asked.
        """
        kind, _, name = account.partition(":")
        if kind == "approver":
            self.attentions.append(attention_of(account, budget, per))
            return
        if not (account == "all" or (kind in ("tenant", "route", "agent", "thread") and name)):
            said = f"{account!r} is no account; use all, tenant:NAME, tenant:*, route:NAME, agent:NAME or thread:*"
            raise UsageError("account.unknown", said)
        if budget.runs is not None:
            if per is None:
                raise UsageError("budget.invalid", f"{account}: runs are limited per window of time; say per='minute' or another")
            self.paces.append(Pace(account, checked_window(per), budget.runs))
        if budget.deadline is not None:
            self.lifetimes.append(lifetime_of(account, budget, per))
        if per is None:
            self.accounts[account] = budget.limits()
        elif budget.limits() != Limits():
            self.periods[account, checked_window(per)] = budget.limits()

    def limit(
        self,
        name: str,
        *,
        tools: str | Callable[..., object] | Sequence[str | Callable[..., object]],
        per: str | Sequence[str] = (),
        window: str = "day",
        uses: int | None = None,
        sums: Mapping[str, str | int] | None = None,
        code: str = "",
    ) -> None:
        """Limit what may be done over history: at most ``uses`` calls of these tools, and ``sums`` of their arguments, for each value of
        the arguments in ``per`` (``user``, ``route`` and ``agent`` are not arguments but facts of the run) and each ``window``.

        A call over the limit is denied with ``code``, by default ``limit.NAME``. Each tenant counts for itself.
        """
        listed = [tools] if isinstance(tools, str) or callable(tools) else list(tools)
        named = tuple(self._tool_name(tool) for tool in listed)
        made = limit_of(name, named, (per,) if isinstance(per, str) else tuple(per), window, uses, sums or {}, code)
        if any(known.name == name for known in self.limits):
            raise UsageError("limit.invalid", f"limit {name}: give it a name of its own")
        self.limits.append(made)

    def start(self, store: str | Path | None = None, **options: object) -> Starting:
        """A runtime of this deck, as an async context manager: ``async with deck.start() as rt``.

        ``store`` is a path or ``sqlite:///path``; by default ``QUARTERDECK_STORE``, else ``quarterdeck.db`` in this folder.
        """
        from quarterdeck.app.starting import Starting

        return Starting(self, store, **options)  # type: ignore[arg-type]

    def _with_undoing(self, tools: Sequence[str]) -> tuple[str, ...]:
        """These tools, and what undoes them."""
        undoing = [self.compensations[name] for name in tools if name in self.compensations]
        return tuple(dict.fromkeys((*tools, *undoing)))

    def _program_name(self, program: AgentSpec | str | Callable[..., object]) -> str:
        name = (
            program if isinstance(program, str) else program.name if isinstance(program, AgentSpec) else self.names.get(program)
        )
        if name is None:
            raise UsageError(
                "workflow.undeclared", f"{program!r:.80} is no program of this deck; decorate it with @deck.workflow(…)"
            )
        return name

    def _with_cancelling(self, tools: Sequence[str]) -> tuple[str, ...]:
        """These tools, and what stops what they have started."""
        hooks = [f"{name}{CANCEL_SUFFIX}" for name in tools if name in self.tools and self.tools[name].spec.cancellable]
        return tuple(dict.fromkeys((*tools, *hooks)))

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


def _delivers_nothing(message: Message) -> None:
    """What stands for the function where a deliverer was given."""
