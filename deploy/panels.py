"""What the dashboards' panels show at this moment, in a terminal: for who has a Prometheus and no Grafana.

python -m deploy.panels                        # all
python -m deploy.panels "who is refused"       # the rows and panels whose titles have that
python -m deploy.panels --prometheus http://HOST:9090
"""

from __future__ import annotations

import argparse
import http.client
import json
import math
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from deploy.dashboards import ALL, Chart

LOCAL = "http://127.0.0.1:9090"
# What Grafana would choose for scrapes every five to fifteen seconds.
_RATE_INTERVAL = "1m"
_UNITS = {"s": " s", "reqps": "/s", "bytes": " bytes", "short": ""}
_LIMIT_S = 10.0

Series = Sequence[Mapping[str, Any]]
"""As Prometheus answers a query: each with its labels (``metric``) and ``value``."""


def prometheus(url: str) -> Callable[[str], Series]:
    """What asks the Prometheus at ``url``. Raises ``OSError``."""

    def ask(query: str) -> Series:
        address = f"{url.rstrip('/')}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(address, timeout=_LIMIT_S) as response:  # noqa: S310 - the operator names it
            found: Series = json.load(response)["data"]["result"]
            return found

    return ask


def shown(ask: Callable[[str], Series], wanted: str = "") -> Iterator[str]:
    """The lines to print: each panel in a row or with a title that has ``wanted``, and its latest values."""
    for _, rows in ALL.values():
        for row, charts in rows.items():
            chosen = [chart for chart in charts if wanted.lower() in f"{row}\n{chart.title}".lower()]
            if not chosen:
                continue
            yield from ("", row)
            for chart in chosen:
                yield f"  {chart.title}. {chart.text}"
                yield from _values(ask, chart) or ("    nothing",)


def _values(ask: Callable[[str], Series], chart: Chart) -> Sequence[str]:
    found = [
        (float(series["value"][1]), _name(legend, series["metric"]))
        for expression, legend in chart.queries
        for series in ask(expression.replace("$__rate_interval", _RATE_INTERVAL))
    ]
    largest_first = sorted((one for one in found if not math.isnan(one[0])), reverse=True)
    return [f"    {_number(value, chart.unit):>12}  {name}".rstrip() for value, name in largest_first]


def _name(legend: str, labels: Mapping[str, str]) -> str:
    """A legend with its ``{{label}}`` filled in."""
    return re.sub(r"{{\s*(\w+)\s*}}", lambda label: labels.get(label[1], ""), legend)


def _number(value: float, unit: str) -> str:
    return f"{value:.0%}" if unit == "percentunit" else f"{value:.3g}{_UNITS[unit]}"


def main() -> int:
    """Returns the exit code: 1 when Prometheus does not answer, or nothing is titled so."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.panels", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wanted", nargs="?", default="", help="part of the title of a row or a panel")
    parser.add_argument("--prometheus", default=LOCAL, metavar="URL", help="default: %(default)s")
    options = parser.parse_args()
    try:
        lines = list(shown(prometheus(options.prometheus), options.wanted))
    except urllib.error.URLError as error:
        sys.stderr.write(f"{options.prometheus} does not answer: {error.reason}\n")
        return 1
    except (OSError, http.client.HTTPException, ValueError, KeyError):
        sys.stderr.write(f"{options.prometheus} does not answer as Prometheus does\n")
        return 1
    if not lines:
        titles = (row for _, rows in ALL.values() for row in rows)
        sys.stderr.write("no such row or panel; the rows are: " + ", ".join(titles) + "\n")
        return 1
    sys.stdout.write("\n".join(lines).lstrip("\n") + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
