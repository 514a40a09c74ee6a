"""`python -m driftwatch` is the same program as `driftwatch`."""

from driftwatch.cli import main

if __name__ == "__main__":
    main()
