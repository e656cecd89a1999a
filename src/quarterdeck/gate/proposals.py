"""From what a model wrote to a proposal: parse, canonicalise, fit, digest.

Model output is untrusted. Whatever is wrong with it becomes a *problem* on the proposal (a reason code and a sentence that the
model may see), never an exception: a proposal that does not fit is still journaled and denied.
"""

from __future__ import annotations

from collections.abc import Mapping

from quarterdeck.core.canonical import Json, canonical, read
from quarterdeck.core.contract import RunContract
from quarterdeck.core.errors import UsageError
from quarterdeck.core.proposal import Proposal, proposal_digest
from quarterdeck.core.specs import ToolSpec
from quarterdeck.core.vocabulary import ProposalKind
from quarterdeck.ports.tools import Tool


class Catalogue:
    """The tools of a deck by name, with the hashes of their schemas computed once."""

    def __init__(self, tools: Mapping[str, Tool]) -> None:
        self._tools = {name: (tool, tool.spec, tool.spec.schema_hash) for name, tool in tools.items()}

    def spec(self, name: str) -> ToolSpec | None:
        """The manifest of a tool, or ``None`` if there is no such tool."""
        found = self._tools.get(name)
        return found[1] if found is not None else None

    def specs(self) -> list[tuple[str, ToolSpec]]:
        """Every manifest, by name."""
        return [(name, found[1]) for name, found in self._tools.items()]

    def tool(self, name: str) -> Tool:
        """The tool itself; only after the gate has allowed a call of it."""
        return self._tools[name][0]

    def unfit(self, name: str, arguments: object) -> str:
        """Why a person's arguments could never be proposed for this tool, as their reader is told it; empty if they could, or nobody knows
        the tool here. Raises :class:`UsageError` (``json.*``) for what is no JSON.
        """
        found = self._tools.get(name)
        return found[0].fit(canonical(arguments)) if found is not None else ""

    def propose(self, contract: RunContract, call: str, name: str, raw: str, attempts: int) -> Proposal:
        """The proposal to call ``name`` with the raw JSON text that a model wrote; ``attempts`` is what one call may cost at most."""
        found = self._tools.get(name)
        problem = detail = ""
        value: Json = None
        try:
            value, arguments = read(raw)
        except UsageError as error:
            problem, detail, arguments = error.code, error.message, b"null"
            value = None
            digested = raw.encode("utf-8", "replace")[:4096]
        else:
            digested = arguments
        schema_hash = ""
        reserve: dict[str, int] = {}
        if found is not None:
            tool, spec, schema_hash = found
            if not problem:
                detail = tool.fit(arguments)
                problem = "schema.invalid" if detail else ""
            reserve = {"tool_calls": 1, "cost_microusd": spec.cost_microusd * attempts} if spec.cost_microusd else _ONE_CALL
        digest = proposal_digest(contract.tenant, contract.run_id, ProposalKind.TOOL, name[:128], schema_hash, digested)
        return Proposal(ProposalKind.TOOL, call, name[:128], digest, arguments, value, reserve, problem, detail)


_ONE_CALL = {"tool_calls": 1}


def propose_model(
    contract: RunContract,
    call: str,
    model: str,
    *,
    first: int,
    turn: int,
    max_output_tokens: int,
    reserve: dict[str, int],
) -> Proposal:
    """The proposal of one model call. Its digest covers which turns of the transcript the model will see, not their contents:
    those are fixed by the hash chain of the journal."""
    arguments = b'{"first":%d,"max_output_tokens":%d,"turn":%d}' % (first, max_output_tokens, turn)
    digest = proposal_digest(contract.tenant, contract.run_id, ProposalKind.MODEL, model, contract.version_set.prompt, arguments)
    value = {"first": first, "max_output_tokens": max_output_tokens, "turn": turn}
    return Proposal(ProposalKind.MODEL, call, model, digest, arguments, value, reserve)


def propose_reply(contract: RunContract, call: str, text: str) -> Proposal:
    """The proposal to answer the caller with this text; an empty one is a proposal to stop."""
    kind = ProposalKind.REPLY if text else ProposalKind.STOP
    problem = detail = ""
    try:
        arguments = canonical({"text": text})
    except UsageError as error:
        arguments, problem, detail = b"null", error.code, error.message
    digest = proposal_digest(contract.tenant, contract.run_id, kind, "caller", "", arguments)
    return Proposal(kind, call, "caller", digest, arguments, {"text": text}, {}, problem, detail)


def propose_model_call(contract: RunContract, call: str, model: str, asked: bytes, reserve: dict[str, int]) -> Proposal:
    """The proposal of one model call of a workflow: its messages and its limit, as JSON."""
    value = {"call": call, "model": model}
    digest = proposal_digest(contract.tenant, contract.run_id, ProposalKind.MODEL, model, contract.version_set.prompt, asked)
    return Proposal(ProposalKind.MODEL, call, model, digest, asked, value, reserve)


def propose_delegation(contract: RunContract, call: str, route: str, raw: str, share: dict[str, int]) -> Proposal:
    """The proposal to let a run of its own, on a route, do something with this payload, within a share of what is left here."""
    problem = detail = ""
    value: Json = None
    try:
        value, arguments = read(raw)
    except UsageError as error:
        problem, detail, arguments = error.code, error.message, b"null"
    text = b"%b\n%b" % (arguments, canonical(dict(share)))
    digest = proposal_digest(contract.tenant, contract.run_id, ProposalKind.DELEGATION, route, "", text)
    return Proposal(ProposalKind.DELEGATION, call, route, digest, arguments, value, {"delegations": 1}, problem, detail)
