"""The drift engine: pure functions of snapshot, object state and event. It does no I/O. Clocks are injected."""
