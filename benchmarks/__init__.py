"""Measures how fast driftwatch heals, against an ideal controller and a toy loop, in one run on one machine.

Absolute times depend on the machine more than on the program. So every latency is a ratio to the *floor*: a process
that only answers a watch event with a ready body. `python -m benchmarks --help` describes the options. A run writes
`docs/benchmarks.md`, which defines the start and the end of each measurement.
"""
