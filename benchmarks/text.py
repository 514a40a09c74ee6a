"""The text around the tables of docs/benchmarks.md."""

BEFORE = """\
# Benchmarks

`make bench` measures this and writes this page; it takes about forty minutes and wants a machine that does
nothing else.
`make bench ARGS=--quick` tries the same code with small numbers in about a minute and writes nothing;
`make bench ARGS="--only single --only burst --no-write"` takes parts (single, burst, toy, noise,
decode, scale, polls, rendering, storm, churn, sync, garbage).

## What is measured

A real control plane (etcd, kube-apiserver, kube-controller-manager) runs beside everything else. Over it:

- the **floor**: an ideal healer, a process of its own that answers a watch event with a ready body over an open
  connection, a POST for a deletion and a JSON merge patch for an edit, on sixteen connections at most. It has no Git,
  no ownership, no retries, no log and no metrics.
- the **daemon**: `driftwatch run` over a Git repository, as it is shipped.
- the **toy loop**: `git pull` and `kubectl apply` every 5 s. It is measured fewer times, because each takes seconds;
  the number stands beside its figure.
- the **probe**: a process of its own that does the damage and sees it with a watch of its own.

A latency goes **from the moment at which the probe's watch shows the object gone (or with the wrong value) to the
moment at which the same watch shows it back (or with the right value)**, for every contender. Many ConfigMaps at once
are deleted over sixteen connections, and measured from the first that is seen gone to the last that is seen back. The
contenders run at the same time, each over a namespace of its own with the same objects; the probe disturbs one at a
time, floor and daemon in turn, and waits in between until the controllers have finished, and before a burst until the
daemon has written the Kubernetes Events that it puts off while it heals. An edit is `kubectl set image`, or a changed
value of a ConfigMap. Three repetitions before each row do not count.

p99 is by nearest rank: of a hundred repetitions the slowest but one, of fifty the slowest. Budgets are ratios to the
floor of the same run. CPU time is the process's own by the kernel's accounting, less what it uses when nothing happens.
A status event is measured twice: in the whole process, where a wake-up of the event loop, TLS and HTTP cost most (the
floor, which does next to nothing with the event, shows how much), and in the calls that decode and judge it alone. The
budget is for a 3 KB event.

## Machine
"""

FLATNESS = """\
The hundredth time must cost what the first did: the daemon's median of the first and the last ten repetitions, ms."""

GROWTH = """\
One object deleted or edited: median of the floor → of the daemon, in ms, and their ratio; each fifty times."""

AFTER = """
## How far to trust it

Probe, contenders, API server and etcd share the cores, so whatever else runs on the machine shows in the p99 first;
the load is given above. Two cores are few: a daemon that heals on several connections takes CPU time from the API
server that serves them, and ratios on a larger machine tend to be better. etcd runs without fsync, which makes the
floor faster and the ratios worse than on a disk that has to be waited for. Figures of different machines, or of
different runs, are not to be compared; ratios within a run are.

A busy machine also makes the probe see the damage late while the healer is at work already, so single figures come out
too small, for every contender alike.

A server-side apply, which the daemon sends, costs the API server more than the floor's POST or merge patch: it parses
the body as YAML and merges field ownership. The rest of the difference is the daemon's own work: judging, the log line
and the metrics.
"""

BUSY = """\
**The machine was busy with other work before this run began (load {load:.1f}). Its figures are provisional: neither the
verdicts nor the ratios below should be relied on before it is repeated on a quiet machine.**
"""
