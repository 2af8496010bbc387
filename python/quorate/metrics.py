"""Metrics of all nodes, read from the Prometheus text that each serves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from quorate.extras import require
from quorate.rendering import Rendered, listing, number, of_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

__all__ = ["Metrics", "Sample"]

_SAMPLE = re.compile(
    r"^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)(?:\s+\S+)?$"
)
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Sample:
    """One sample of one node.

    Attributes
    ----------
    node : str
        The node.
    name : str
        The metric; counters end in ``_total``, histograms have ``_bucket``, ``_sum`` and ``_count``.
    labels : dict
        The metric's labels.
    value : float
        The value.
    """

    node: str
    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True, repr=False)
class Metrics(Rendered):
    """The metrics of all nodes that responded.

    Attributes
    ----------
    samples : tuple of Sample
        All samples.
    missing : tuple of str
        The nodes that did not respond.

    Examples
    --------
    >>> from quorate.metrics import parse
    >>> metrics = parse("n1", 'quorate_operations_total{op="put",outcome="ok"} 3')
    >>> metrics.value("quorate_operations_total", op="put")
    3.0
    """

    samples: tuple[Sample, ...]
    missing: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Sample]:
        return iter(self.samples)

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all metrics, sorted."""
        return tuple(sorted({sample.name for sample in self.samples}))

    def where(self, name: str | None = None, *, node: str | None = None, **labels: str) -> Metrics:
        """Select samples by metric, node and labels.

        Parameters
        ----------
        name : str, optional
            The metric.
        node : str, optional
            The node.
        **labels : str
            Labels that a sample must have with these values.

        Returns
        -------
        Metrics
            The matching samples.
        """
        chosen = (
            sample
            for sample in self.samples
            if name in (None, sample.name)
            and node in (None, sample.node)
            and all(sample.labels.get(label) == value for label, value in labels.items())
        )
        return Metrics(tuple(chosen), self.missing)

    def value(self, name: str, *, node: str | None = None, **labels: str) -> float:
        """Sum the matching samples; 0 if there are none.

        Parameters
        ----------
        name : str
            The metric.
        node : str, optional
            Only this node.
        **labels : str
            Labels that a sample must have with these values.

        Returns
        -------
        float
            The sum.
        """
        return sum((sample.value for sample in self.where(name, node=node, **labels)), 0.0)

    def to_pandas(self) -> Any:
        """Make a table with one row per sample; needs the extra ``quorate[notebook]``.

        Returns
        -------
        pandas.DataFrame
            Columns ``node``, ``name``, ``value`` and one per label.

        Raises
        ------
        ModuleNotFoundError
            pandas is not installed.
        """
        pandas = require("pandas", "metrics.to_pandas")

        rows = [{"node": s.node, "name": s.name, "value": s.value, **s.labels} for s in self.samples]
        return pandas.DataFrame(rows)

    def __rich__(self) -> RenderableType:
        from rich.markup import escape

        shown = [sample for sample in self.samples if not sample.name.endswith("_bucket")]
        nodes = sorted({sample.node for sample in shown}, key=_by_number)
        table = listing("metric", title="metrics")
        for node in nodes:
            table.add_column(node, justify="right", no_wrap=True)
        rows: dict[str, dict[str, float]] = {}
        for sample in shown:
            labels = ",".join(
                f"{label}={value}" for label, value in sorted(sample.labels.items()) if label != "node"
            )
            rows.setdefault(f"{sample.name}{{{labels}}}" if labels else sample.name, {})[sample.node] = (
                sample.value
            )
        for name, values in sorted(rows.items()):
            table.add_row(escape(name), *(number(values[node]) if node in values else "" for node in nodes))
        return of_nodes(table, self.missing)


def _by_number(node: str) -> tuple[int, str]:
    digits = node.lstrip("n")
    return (int(digits) if digits.isdecimal() else 0, node)


def parse(node: str, text: str) -> Metrics:
    """Read the Prometheus text format.

    Parameters
    ----------
    node : str
        The node that served it.
    text : str
        The served text.

    Returns
    -------
    Metrics
        Its samples, comments left out.
    """
    samples = []
    for line in text.splitlines():
        match = _SAMPLE.match(line)
        if match is None:
            continue
        labels = {
            label: _ESCAPE.sub(lambda m: "\n" if m[1] == "n" else m[1], value)
            for label, value in _LABEL.findall(match["labels"] or "")
        }
        samples.append(Sample(node, match["name"], labels, float(match["value"])))
    return Metrics(tuple(samples))
