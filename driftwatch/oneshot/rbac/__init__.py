"""`driftwatch rbac`: the least-privilege role for the objects that the sources declare."""
