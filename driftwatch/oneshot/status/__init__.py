"""Asks a running daemon how it goes, and shows the answer: what `driftwatch status` says."""
