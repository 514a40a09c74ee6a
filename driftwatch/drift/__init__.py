"""The drift engine: pure functions of snapshot, record and event. No I/O, no clock of its own."""
