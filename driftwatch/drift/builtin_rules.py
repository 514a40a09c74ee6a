"""Built-in ignore rules: fields that Kubernetes or its controllers write into declared objects."""

from collections.abc import Sequence

from driftwatch.drift.rules import FieldOwner, Rule, Target, parse_path, parse_pointer


def _rule(name: str, reason: str, kind: tuple[str, str], path: str, owners: Sequence[FieldOwner] = ()) -> Rule:
    field = path.rpartition(".")[2]
    return Rule(
        name,
        Target(*kind),
        reason,
        paths=(parse_path(path),),
        owners=tuple(owners),
        needle=f'"{field}":'.encode(),
        built_in=True,
    )


def _kept(name: str, reason: str, *pointers: str, owners: Sequence[FieldOwner] = ()) -> Rule:
    return Rule(
        name,
        reason=reason,
        pointers=tuple(map(parse_pointer, pointers)),
        owners=tuple(owners),
        kept=True,
        built_in=True,
    )


BUILT_IN_RULES = (
    _kept(
        "rollout-restart",
        "A rollout restart is a wish for new Pods, not for another manifest.",
        "/spec/template/metadata/annotations/kubectl.kubernetes.io~1restartedAt",
        owners=[FieldOwner("kubectl-rollout")],
    ),
    _kept(
        "kubectl-notes",
        "kubectl's own notes change nothing of what an object does.",
        "/metadata/annotations/kubectl.kubernetes.io~1last-applied-configuration",
        "/metadata/annotations/kubernetes.io~1change-cause",
    ),
    _kept(
        "prune-wish",
        "Whether an object may be pruned can be said on the live object, too.",
        "/metadata/annotations/driftwatch.io~1prune",
    ),
    _kept(
        "undeclared-replicas",
        "Git that says nothing of replicas leaves scaling to others; reverting it would scale to one.",
        "/spec/replicas",
    ),
    _rule(
        "autoscaled-replicas",
        "A HorizontalPodAutoscaler owns the number of replicas once it has scaled; scaled by hand it is drift.",
        ("*", "*"),
        "$.spec.replicas",
        owners=[
            FieldOwner("kube-controller-manager", "scale"),
            FieldOwner("vpa-*", "scale"),
            FieldOwner("keda*", "scale"),
        ],
    ),
    _rule(
        "aggregated-cluster-roles",
        "The rules of an aggregated ClusterRole are written by the controller that aggregates them.",
        ("rbac.authorization.k8s.io", "ClusterRole"),
        "$.rules",
        owners=[FieldOwner("clusterrole-aggregation-controller"), FieldOwner("kube-controller-manager")],
    ),
    _rule(
        "mutating-webhook-ca-bundle",
        "The CA bundle of a webhook is put in by whoever issues its certificate.",
        ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"),
        "$.webhooks[*].clientConfig.caBundle",
    ),
    _rule(
        "validating-webhook-ca-bundle",
        "The CA bundle of a webhook is put in by whoever issues its certificate.",
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        "$.webhooks[*].clientConfig.caBundle",
    ),
    _rule(
        "crd-conversion-ca-bundle",
        "The CA bundle of a conversion webhook is put in by whoever issues its certificate.",
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        "$.spec.conversion.webhook.clientConfig.caBundle",
    ),
    _rule(
        "apiservice-ca-bundle",
        "The CA bundle of an aggregated API is put in by whoever issues its certificate.",
        ("apiregistration.k8s.io", "APIService"),
        "$.spec.caBundle",
    ),
)
