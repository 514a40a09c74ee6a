"""Git access: mirrors, credentials, running git, signature checks."""
