"""The policy room: Cedar policies, compiled once, asked once per proposal.

**Purpose.** Answer :class:`~quarterdeck.ports.policy.PolicyEngine`: given the attributes of one proposal, *allow*,
*deny* or *ask*, with reason codes and the version of the set that was asked. The language is Cedar
(https://www.cedarpolicy.com): small, total, analysable, with a forbid that always wins over a permit.

**What policies speak about.**

========================  ======================================================================================
principal                 ``Agent::"<name>"`` with ``tenant``, ``autonomy``, ``risk``, ``route`` (strings)
action                    ``Action::"model"``, ``"memory"``, ``"retrieval"``, ``"delegation"``, ``"reply"``, ``"stop"``;
                          ``Action::"tool"`` is the group of all tool calls, ``Action::"tool:<name>"`` the calls of one
resource                  ``Tool::"<name>"`` with ``effect``, ``permissions`` (a set of strings), ``cost_microusd``;
                          ``Model::"…"``; ``Destination::"<name>"`` for everything else (a memory, a corpus, an agent, a person)
context                   ``tenant``, ``user``, ``route``, ``autonomy``, ``risk``, ``mode`` (strings), ``turn``,
                          ``spent.tokens``, ``spent.tool_calls``, ``spent.cost_microusd`` (integers),
                          ``labels.untrusted``, ``labels.sensitive``, ``labels.crossing`` (booleans),
                          ``labels.arguments`` (a set of strings), and ``args``
context.args              the arguments of this tool, typed from its JSON Schema; empty for the other actions
========================  ======================================================================================

A rule about one tool names it in the scope, and then its arguments are typed strictly::

    @reason("refund.too_large") @outcome("ask")
    forbid(principal, action in Action::"tool", resource == Tool::"issue_refund")
    when { context.args.amount_cents > 5000 };

A rule about many tools asks first: ``when { context.args has amount_cents && context.args.amount_cents > 5000 }``.
``@reason`` gives the code that the decision carries; ``@outcome("ask")`` on a forbid lets a person lift it, ``"redact"``
withholds the result from the model, ``"degrade"`` chooses a lesser model. ``@lifts("labels")`` on a permit lets it hold although
untrusted content decided; ``@shadow`` on any lets it be asked and journaled, never obeyed.

**How arguments become Cedar values** (``schema``, ``shapes``). string → String; integer → Long; boolean → Bool; number
→ ``decimal`` (exact, at most four digits after the point); array → Set; object with properties → record; not required
or nullable → optional (null is absent). What has no such type (free-form objects, unions, tuples, recursion, more than
eight levels) is not visible to policies, and neither is a property that the schema does not declare. Property names
that Cedar's JSON would interpret (``__entity``, ``__extn``) carry one more leading underscore.

**Promises.**

* Nothing but a clean permit allows. A forbid that wins, no permit, a policy that raised, an attribute that is missing,
  a name that the manifest does not know, an exception: all deny. Cedar itself skips a forbid that raised; here it
  denies.
* *ask*, *redact* and *degrade* only where a permit applies and no forbid that applies denies.
* A set is validated whole before it exists: :meth:`CedarEngine.build` raises ``policy.invalid`` with every problem.
* The engine sees only what the policies in question read; a verdict is a pure function of that, so a remembered
  verdict and a fresh one are equal. Arguments enter as typed values, never as JSON, so a model cannot smuggle in an
  entity.
* Verdicts cost about the same with five policies as with five hundred that are about other tools.

**It must never** read a clock, a store or the network, change after it was built, or let a proposal through because
something went wrong.

Codes that it answers with, besides those of ``@reason``: ``policy.denied``, ``policy.ask``, ``policy.softened``, ``policy.no_permit``,
``policy.error``, ``policy.unrepresentable`` (a value that policies read and Cedar has no exact form for: an integer
beyond 64 bits, a number with more than four digits after the point, a lone surrogate) and ``policy.too_large``.
"""

from quarterdeck.policy.cedar import CedarEngine, Explanation
from quarterdeck.policy.schema import PolicyManifest, PolicyTool
from quarterdeck.policy.source import default_policies

__all__ = ["CedarEngine", "Explanation", "PolicyManifest", "PolicyTool", "default_policies"]
