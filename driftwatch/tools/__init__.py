"""Named tools (kustomize, helm, sops): taken from PATH when they fit, else compiled once from their Go modules."""

from driftwatch.tools.catalogue import HELM, KUSTOMIZE, SOPS, TOOLS, Program, Tool, ensure
from driftwatch.tools.errors import ToolError

__all__ = ["HELM", "KUSTOMIZE", "SOPS", "TOOLS", "Program", "Tool", "ToolError", "ensure"]
