"""A proposal: what an agent wants to happen, in the one form that the gate judges.

Its digest covers tenant, run, kind, name, schema hash and canonical arguments; a decision and an approval are bound to it, so
what was judged, shown and executed are the same bytes.
"""

from __future__ import annotations

import msgspec

from quarterdeck.core.canonical import digest
from quarterdeck.core.vocabulary import ProposalKind


class Proposal(msgspec.Struct, frozen=True, gc=False):
    """One proposed step. ``arguments`` is canonical JSON; ``value`` the same, parsed; ``problem`` a code if they do not fit.

    ``reserve`` is the worst case that performing it can consume, by budget dimension.
    """

    kind: ProposalKind
    call: str
    name: str
    digest: str
    arguments: bytes
    value: object
    reserve: dict[str, int]
    problem: str = ""
    detail: str = ""


def proposal_digest(tenant: str, run_id: str, kind: ProposalKind, name: str, schema_hash: str, arguments: bytes) -> str:
    """The digest that binds decision, approval and execution together; hex SHA-256.

    None of the framed fields can hold a line break (names are checked at the door), so no two proposals share a preimage.
    """
    return digest(f"quarterdeck/1\n{tenant}\n{run_id}\n{kind}\n{name}\n{schema_hash}\n", arguments)
