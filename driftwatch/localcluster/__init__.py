"""A real control plane (etcd, kube-apiserver, kube-controller-manager, kubectl) on this machine."""
