"""Reconciles objects: queue, controller, apply requests and the handling of apply errors."""
