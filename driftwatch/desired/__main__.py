"""`python -m driftwatch.desired`: the desired-state process, started by the daemon."""

from driftwatch.desired.process import main

if __name__ == "__main__":
    main()
