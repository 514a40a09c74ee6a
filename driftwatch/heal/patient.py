"""One object on the table: all that the requests that heal it go by."""

import msgspec

from driftwatch.cluster.discovery import Resource
from driftwatch.drift.declared import Claim
from driftwatch.drift.explain import Subject
from driftwatch.drift.ownership import Evidence, Record
from driftwatch.model import ObjectKey


class Patient(msgspec.Struct):
    """One object on the table: what Git declares, how it is served, what is remembered and what was seen of it."""

    key: ObjectKey
    claim: Claim
    resource: Resource
    record: Record
    evidence: Evidence | None

    @property
    def subject(self) -> Subject:
        """Whose drift is explained."""
        return Subject(self.key, self.claim.source, self.record.policy.sensitive)

    @property
    def place(self) -> tuple[str, str]:
        """Namespace and name, which complete the path of the resource."""
        return self.key.namespace, self.key.name
