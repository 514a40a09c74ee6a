"""What commands do once, without the daemon: diff, validate, render, rbac, status."""
