"""`python -m tests.chaos`: breaks everything again and again, and checks that it heals."""

import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

import click

from tests.chaos.campaign import Campaign, InvariantBroken, summary, write_report


@click.command()
@click.option("--seconds", default=1800.0, show_default=True, help="How long; the last round is always finished.")
@click.option("--seed", type=int, help="What to repeat; without it another one each time.")
@click.option("--report", type=click.Path(path_type=Path), help="Write the figures to this file, as JSON.")
def main(seconds: float, seed: int | None, report: Path | None) -> None:
    """Break a control plane, the daemon and the way between them, at random and under load.

    After each few faults everything must come to be as Git says. Exit status 1 when it does not: the seed, the round
    and the objects are told, and logs are kept.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that nothing is left, also then
    folder = Path(tempfile.mkdtemp(prefix="driftwatch-chaos-"))
    campaign = Campaign(int(time.time()) if seed is None else seed, folder / "run", click.echo, seconds=seconds)
    click.echo(f"seed {campaign.seed}")
    status = 0
    try:
        (folder / "run").mkdir()
        campaign.run()
    except InvariantBroken as finding:
        click.echo(str(finding))
        status = 1
    finally:
        if campaign.report:
            click.echo(summary(campaign.report))
            if report is not None:
                write_report(campaign.report, report)
        if status == 0:
            shutil.rmtree(folder, ignore_errors=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
