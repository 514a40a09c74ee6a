"""A source that is rendered, and what it is rendered from: a kustomization and a chart."""

import json
from pathlib import Path

from driftwatch.source_spec import RenderSpec

from tests.support.followed import Followed


class Source(Followed):
    """A source whose commits are rendered and turned into changes."""

    def __init__(self, folder, path="", **render):
        super().__init__(folder, path=path, render=RenderSpec(**render))

    def restart(self, **render):
        """Begin anew with what is on disk, perhaps with other settings."""
        if render:
            spec = RenderSpec(**render)
            self.spec = self.origin.spec(Path(self.spec.mirror).parent, path=self.spec.path, render=spec)
        super().restart()


def found(change):
    """The manifests by kind and name, as mappings."""
    return {f"{one.kind}/{one.name}": json.loads(one.body) for one in change.upserts}


def places(change):
    return {f"{one.kind}/{one.name}": f"{one.file}:{one.line}" for one in change.upserts}


def service(name, port=80):
    return f"apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  ports:\n  - port: {port}\n"


KUSTOMIZATION = {
    "base/kustomization.yaml": "resources:\n- app.yaml\nconfigMapGenerator:\n- name: settings\n  files: [app.conf]\n",
    "base/app.yaml": f"# two objects\n{service('web')}---\n# the second\n{service('api')}",
    "base/app.conf": "level=info\n",
    "components/tls/kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
    "patches:\n- path: port.yaml\n  target: {kind: Service}\n",
    "components/tls/port.yaml": "- op: replace\n  path: /spec/ports/0/port\n  value: 443\n",
    "overlays/prod/kustomization.yaml": "namespace: shop\nnamePrefix: prod-\nresources: [../../base]\n"
    "components: [../../components/tls]\nlabels:\n- pairs: {stage: prod}\npatches:\n- path: api.yaml\n",
    "overlays/prod/api.yaml": "apiVersion: v1\nkind: Service\n"
    "metadata:\n  name: api\n  annotations: {team: payments}\n",
    "unrelated/readme.yaml": "a: 1\n",
}


CHART = {
    "shop/Chart.yaml": "apiVersion: v2\nname: shop\nversion: 1.2.3\n",
    "shop/values.yaml": "port: 80\nextra: false\n",
    "shop/templates/service.yaml": "{{- /* the service */ -}}\napiVersion: v1\nkind: Service\nmetadata:\n"
    "  name: {{ .Release.Name }}-shop\n  namespace: {{ .Release.Namespace }}\n"
    "spec:\n  ports: [{port: {{ .Values.port }}}]\n",
    "shop/templates/extra.yaml": "{{- if .Values.extra }}\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: extra\n"
    'data:\n  kube: "{{ .Capabilities.KubeVersion.Version }}"\n'
    '  has: "{{ .Capabilities.APIVersions.Has "x.io/v1" }}"\n{{- end }}\n',
    "shop/templates/hook.yaml": "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: migrate\n"
    "  annotations: {helm.sh/hook: 'pre-install,pre-upgrade'}\nspec: {template: {spec: {restartPolicy: Never}}}\n",
    "shop/templates/tests/test.yaml": "apiVersion: v1\nkind: Pod\nmetadata:\n  name: try\n"
    "  annotations: {helm.sh/hook: test}\nspec: {containers: []}\n",
    "shop/templates/NOTES.txt": "Thank you for installing.\n",
    "shop/crds/crd.yaml": "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\n"
    "metadata: {name: carts.shop.example.com}\nspec: {group: shop.example.com}\n",
}
