"""The workers that count together, and the metrics that Prometheus expects of each process."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from prometheus_client import ProcessCollector
from prometheus_client.core import Metric
from prometheus_client.registry import Collector


class ProcessesCollector(Collector):
    """The `process_` metrics of several processes, by their ids. Linux tells them, in /proc."""

    def __init__(self, pids: Collection[int]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for pid in self._pids:
            for family in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                shared = families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                for sample in family.samples:
                    shared.add_sample(sample.name, {"pid": str(pid)}, sample.value)
        yield from families.values()


def living(folder: Path) -> set[int]:
    """Find the workers that live, by the files of their gauges. Remove the files of the others."""
    pids = set[int]()
    for file in folder.glob("gauge_live*.db"):
        pid = int(file.stem.rpartition("_")[2])
        try:
            os.kill(pid, 0)
        except OSError:  # that worker has ended
            file.unlink(missing_ok=True)
        else:
            pids.add(pid)
    return pids
