"""A real Prometheus that scrapes what it is told to, and answers queries: alerts and dashboards are proved with it.

`Prometheus(...)` is a context manager. `query` gives the samples of an expression now, `wait` waits for some.
"""

import json
import re
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import yaml
from driftwatch.tools import ensure

from tests.support.prometheus_objects import RULES
from tests.support.tools import PROMETHEUS, PROMTOOL
from tests.support.waiting import PATIENCE, until

STOP_SECONDS = 20.0
JOB = "driftwatch"


class Sample(NamedTuple):
    """One series of an answer, with its newest value."""

    labels: dict[str, str]
    value: float


class QueryRefused(AssertionError):
    """Prometheus refuses an expression; the message has it and Prometheus' own words."""


class Prometheus:
    """Scrapes `targets` (HOST:PORT) every `interval` seconds and evaluates the alert rules as often.

    A scrape may take as long: on a busy machine half a second was too little for one in five.

    `job` are further settings of the scrape job: `scheme`, `tls_config`, `authorization`.
    """

    def __init__(
        self,
        folder: Path,
        targets: Sequence[str],
        *,
        interval: float = 1.0,
        rules: Sequence[Path] = (RULES,),
        job: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder = folder
        self._targets = list(targets)
        self._interval = f"{round(interval * 1000)}ms"
        self._rules = rules
        self._job = dict(job or {})
        self._process: subprocess.Popen[bytes] | None = None
        self.address = ""

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        configuration = self._folder / "prometheus.yml"
        configuration.write_text(yaml.safe_dump(self._configuration()))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [ensure(PROMETHEUS).path, f"--config.file={configuration}", "--web.listen-address=127.0.0.1:0",
                 f"--storage.tsdb.path={self._folder / 'data'}", "--enable-feature=exemplar-storage",
                 "--log.format=json"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        try:
            self.address = until(self._listens_at, "Prometheus listens", timeout=60.0, evidence=self.last_lines)
            until(self._is_ready, "Prometheus is ready", timeout=60.0, evidence=self.last_lines)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    # --- What is asked of it ---

    def query(self, expression: str) -> list[Sample]:
        """The samples of an instant vector or scalar, now. Raises `QueryRefused`.

        A scrape that was too slow makes every series stale until the next one. Where that is why there is no sample,
        the next one is waited for.
        """
        [found] = until(
            lambda: self._asked(expression), "a scrape is in time", evidence=lambda: self._story(expression)
        )
        return found

    def _asked(self, expression: str) -> list[list[Sample]]:
        """The answer, or nothing if the last scrape was missed."""
        now = time.time()
        found = self._at(now, expression)
        return [found] if found or not self._at(now, "up == 0") else []

    def _at(self, when: float, expression: str) -> list[Sample]:
        data = self.api("query", query=expression, time=str(when))
        if data["resultType"] == "scalar":
            return [Sample({}, float(data["result"][1]))]
        return [Sample(each["metric"], float(each["value"][1])) for each in data["result"]]

    def query_range(self, expression: str, start: float, end: float, step: float) -> list[dict[str, Any]]:
        """The series of an expression over a time, as Grafana's panels ask: `metric` and `values` of each."""
        found: list[dict[str, Any]] = self.api(
            "query_range", query=expression, start=str(start), end=str(end), step=str(step)
        )["result"]
        return found

    def value(self, expression: str) -> float:
        """Sum of the samples of an expression, 0 without any."""
        return sum(sample.value for sample in self.query(expression))

    def wait(self, expression: str, what: str, *, timeout: float = PATIENCE) -> list[Sample]:
        """Wait until an expression has samples; return them."""
        return until(lambda: self.query(expression), what, timeout=timeout, evidence=lambda: self._story(expression))

    def rules(self) -> list[dict[str, Any]]:
        """Every rule with its health, last error and, for an alert, its state and instances."""
        return [rule for group in self.api("rules")["groups"] for rule in group["rules"]]

    def alerts(self, name: str) -> list[dict[str, Any]]:
        """Instances of an alert that are pending or firing now."""
        return [each for each in self.api("alerts")["alerts"] if each["labels"]["alertname"] == name]

    def targets(self) -> list[dict[str, Any]]:
        """What it scrapes, with the last error of each."""
        found: list[dict[str, Any]] = self.api("targets")["activeTargets"]
        return found

    def exemplars(self, expression: str, start: float, end: float) -> list[dict[str, Any]]:
        """Exemplars of the series of an expression: `seriesLabels` and `exemplars` of each."""
        found: list[dict[str, Any]] = self.api("query_exemplars", query=expression, start=str(start), end=str(end))
        return found

    def api(self, path: str, **arguments: str) -> Any:
        """`data` of the answer of its HTTP API. Raises `QueryRefused`."""
        body = urllib.parse.urlencode(arguments).encode() if arguments else None
        try:
            with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}", body, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise QueryRefused(f"{path} {arguments}: {error.read().decode(errors='replace')}") from None

    # --- Its parts ---

    @property
    def _log(self) -> Path:
        return self._folder / "prometheus.log"

    def last_lines(self) -> str:
        """The end of its log, for failure messages."""
        return "\n".join(["last lines of Prometheus' log:", *self._log.read_text().splitlines()[-15:]])

    def _story(self, expression: str) -> str:
        troubles = [target["lastError"] for target in self.targets()]
        return f"{expression}\nscrape errors: {troubles}\n{self.last_lines()}"

    def _configuration(self) -> dict[str, Any]:
        return {
            "global": {
                "scrape_interval": self._interval,
                "scrape_timeout": self._interval,
                "evaluation_interval": self._interval,
            },
            "rule_files": [str(file) for file in self._rules],
            "scrape_configs": [
                {"job_name": JOB, "honor_labels": True, **self._job, "static_configs": [{"targets": self._targets}]}
            ],
        }

    def _listens_at(self) -> str:
        assert self._process is not None
        assert self._process.poll() is None, f"Prometheus has ended\n{self.last_lines()}"
        found = re.search(r'"msg":"Listening on","component":"web","address":"([^"]+)"', self._log.read_text())
        return found[1] if found else ""

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False


def promtool(*arguments: str, text: str | None = None) -> subprocess.CompletedProcess[str]:
    """Run promtool, with `text` as its standard input."""
    return subprocess.run(
        [ensure(PROMTOOL).path, *arguments], input=text or "", capture_output=True, text=True, timeout=120, check=False
    )
