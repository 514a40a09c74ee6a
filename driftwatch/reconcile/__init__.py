"""Healing: which object is worked on when, and what each answer of the API server means."""
