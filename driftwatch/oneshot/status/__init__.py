"""`driftwatch status`: fetches the status of a running daemon and shows it."""
