"""How fast drift is put back, against an ideal healer and a toy loop on the same machine in the same run.

Absolute times say more about the machine than about the program, so every latency here is a ratio to the *floor*: a
process that does nothing but answer a watch event with a ready body. `python -m benchmarks --help` says how it is
run, and `docs/benchmarks.md`, which it writes, from when to when each figure is measured.
"""
