"""`driftwatch diff`: compares a cluster with Git once, without a daemon and without writes."""
