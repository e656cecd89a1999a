"""Labels: what a run has read, as data.

Every source has an integrity (may its content steer actions?) and a confidentiality (may its content leave?). Reading joins the
source's label into the run's: integrity only falls, confidentiality only rises. The join is commutative, associative and
idempotent, so the order of reads never matters.

>>> Labels().joined(Labels(Integrity.UNTRUSTED)).joined(Labels(confidentiality=Confidentiality.SECRET))
Labels(integrity=<Integrity.UNTRUSTED: 'untrusted'>, confidentiality=<Confidentiality.SECRET: 'secret'>)
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Integrity(StrEnum):
    """Whether content may steer what happens."""

    TRUSTED = "trusted"
    UNTRUSTED = "untrusted"


class Confidentiality(StrEnum):
    """Whether content may leave. Everything but what is public counts as sensitive access."""

    PUBLIC = "public"
    INTERNAL = "internal"
    SENSITIVE = "sensitive"
    SECRET = "secret"  # noqa: S105 - a label, not a password


_RANK = {level: rank for rank, level in enumerate(Confidentiality)}


class Labels(msgspec.Struct, frozen=True):
    """The label of a source, a message or a whole run."""

    integrity: Integrity = Integrity.TRUSTED
    confidentiality: Confidentiality = Confidentiality.PUBLIC

    def joined(self, other: Labels) -> Labels:
        """The label of content that depends on both."""
        if other == self:
            return self
        integrity = self.integrity if other.integrity is Integrity.TRUSTED else other.integrity
        higher = _RANK[other.confidentiality] > _RANK[self.confidentiality]
        return Labels(integrity, other.confidentiality if higher else self.confidentiality)

    @property
    def untrusted(self) -> bool:
        """Whether content that somebody else wrote is among it."""
        return self.integrity is Integrity.UNTRUSTED

    @property
    def sensitive(self) -> bool:
        """Whether anything of it is not for everybody."""
        return self.confidentiality is not Confidentiality.PUBLIC


def either(one: Labels | None, other: Labels | None) -> Labels | None:
    """The label of content that both say something about, each perhaps nothing (``None``).

    >>> either(None, Labels(Integrity.UNTRUSTED)) == Labels(Integrity.UNTRUSTED), either(None, None)
    (True, None)
    """
    return one if other is None else other if one is None else one.joined(other)


NO_LABELS = Labels()
"""The label of a run that has read nothing yet."""
