"""Under which names people write by hand, and why we think so of each: what they add is reverted.

A client that gives no field manager is known by its User-Agent up to the first slash. A name belongs here only if no
controller writes under it, for a controller that is taken for a person is fought without end. That is why some names
are not here under which people write as well: `rancher` is also what Rancher's controllers annotate with, and
`argocd-server` fills in the `argocd-secret` that Argo CD's own manifests declare empty, and asks for a sync by a field
of the Application.
"""

INTERACTIVE_MANAGERS = {
    "kubectl": "`kubectl scale` and `kubectl apply --server-side`",
    "kubectl-*": "every other command of kubectl (`kubectl-edit`, `kubectl-set`), and its plugins",
    "oc": "OpenShift's `oc`, for its own commands; those that it has from kubectl write as `kubectl-*`",
    "oc-*": "plugins of `oc`",
    "k9s": "k9s: scaling, setting an image; what is edited in it comes by `kubectl-edit`",
    "node-fetch": "Lens and its relatives; also a program in Node.js that gives itself no name",
    "Lens*": "Lens, where it names itself",
    "OpenLens*": "OpenLens, where it names itself",
    "freelens*": "Freelens, where it names itself",
    "Mozilla": "a browser: OpenShift's console, Headlamp and others pass its name on",
    "headlamp*": "Headlamp's server, for what the browser does not do itself",
    "dashboard": "the Kubernetes Dashboard up to version 2",
    "dashboard-api": "the Kubernetes Dashboard from version 3 on",
    "kubernetes-dashboard*": "the Kubernetes Dashboard, as some distributions rename it",
    "octant*": "Octant",
    "GoogleCloudConsole": "the console of Google Cloud",
    "ACK-Console*": "the console of Alibaba Cloud",
    "curl": "a request by hand",
    "PostmanRuntime": "a request by hand, with Postman",
    "python-requests": "a script",
}
"""Name patterns, each with who that is."""
