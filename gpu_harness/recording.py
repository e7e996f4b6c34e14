"""Live traffic as a workload: times, token counts and prefix hashes, never text."""

from __future__ import annotations

import os
from pathlib import Path

from gpu_harness.views import Flight
from sim.workloads import Prefixes, Workload

__all__ = ["Recording"]

_MOST = 1_000_000


class Recording:
    """Keeps what finished, up to a million requests; written as CSV or Parquet, by the file's name."""

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path)
        if self._path.suffix not in (".csv", ".parquet"):
            raise ValueError(f"record={str(path)!r}; expected a file that ends in .csv or .parquet")
        if not self._path.absolute().parent.is_dir():
            raise FileNotFoundError(f"record={str(path)!r}; its folder is not there")
        self._rows: list[tuple[Flight, tuple[int, ...]]] = []
        self.dropped = 0
        """Requests that are not in it: unfinished, or too many."""

    def add(self, flight: Flight) -> None:
        """A request that is over."""
        if flight.outcome != "finished" or flight.made < 1 or len(self._rows) >= _MOST:
            self.dropped += 1
            return
        # Only whole blocks of the prompt as the server counted it; an estimate may have had more.
        hashes = flight.view.prefix[: flight.prompt_tokens // flight.block_size]
        self._rows.append((flight, hashes))

    def workload(self) -> Workload:
        """The requests in order of arrival; the first arrives at 0 s."""
        rows = sorted(self._rows, key=lambda row: row[0].arrival)
        flights = [flight for flight, _ in rows]
        start = flights[0].arrival if flights else 0.0
        sessions = {name: number for number, name in enumerate(dict.fromkeys(f.session for f in flights))}
        size = flights[0].block_size if flights else 16
        alike = all(flight.block_size == size for flight in flights)
        none = float("nan")
        return Workload.from_arrays(
            arrival=[flight.arrival - start for flight in flights],
            prompt_tokens=[flight.prompt_tokens for flight in flights],
            output_tokens=[flight.made for flight in flights],
            priority=[flight.priority for flight in flights],
            session=[-1 if flight.session is None else sessions[flight.session] for flight in flights],
            prefixes=Prefixes.from_rows([list(hashes) for _, hashes in rows], size)
            if flights and alike
            else None,
            ttft_slo=[none if flight.ttft_slo is None else flight.ttft_slo for flight in flights],
            tpot_slo=[none if flight.tpot_slo is None else flight.tpot_slo for flight in flights],
        )

    def write(self) -> None:
        """Write the file anew; a reader never sees half of it. OSError, which names it, if it cannot be."""
        half = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        workload = self.workload()
        try:
            if self._path.suffix == ".csv":
                workload.to_csv(half)
            else:
                workload.to_parquet(half)
            half.replace(self._path)
        except OSError as error:
            half.unlink(missing_ok=True)
            raise OSError(
                f"record={str(self._path)!r} cannot be written ({error.strerror or error}), and its "
                f"{len(workload)} requests are lost; what was there is as it was"
            ) from error
