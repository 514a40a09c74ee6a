"""Settings for objects that leave Git: pruning and the inventory."""

from typing import Annotated, Literal

from pydantic import Field

from driftwatch.config.values import Duration, Section

GuardedKind = Literal["Namespace", "CustomResourceDefinition", "PersistentVolume", "PersistentVolumeClaim"]

Prune = Annotated[
    bool,
    Field(description="Delete objects of this source that leave Git. Otherwise they are only reported, as orphaned."),
]
PruneKinds = Annotated[
    list[GuardedKind],
    Field(
        description="Which of the kinds that take other objects or data with them are pruned, too: Namespace, "
        "CustomResourceDefinition, PersistentVolume, PersistentVolumeClaim. For single objects there is the annotation "
        "driftwatch.io/prune: confirmed."
    ),
]
PruneDelay = Annotated[
    Duration,
    Field(
        description="How long an object must have been gone from Git before it is deleted; until then another source "
        "may take it over."
    ),
]
PruneLimit = Annotated[
    int,
    Field(
        ge=0,
        description="The brake: a commit that removes more objects than this, and more than pruneLimitPercent of the "
        "source, deletes nothing before it is confirmed.",
    ),
]
PruneLimitPercent = Annotated[
    float, Field(ge=0, le=100, description="The brake's other half, as a percentage of the source's objects.")
]
PruneConfirm = Annotated[
    str,
    Field(
        pattern=r"^([0-9a-f]{7,64})?$",
        examples=["3f2a91c04b7d"],
        description="The commit, or its first seven digits or more, whose removals are confirmed although they are "
        "over the limit.",
    ),
]


class InventorySettings(Section):
    """Where the kinds of every source are remembered, so that what left Git while the daemon was down is found."""

    namespace: str = Field(
        "driftwatch-system",
        pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$",
        description="Namespace of the ConfigMaps driftwatch-inventory-SOURCE. It is not created; while it is not "
        "there, and when this is empty, the state folder alone has the kinds.",
    )
