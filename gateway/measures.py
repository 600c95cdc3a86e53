"""The metrics of generations. Those that every generation has are looked up once for each kind of generation."""

from __future__ import annotations

from tidegate.telemetry import catalogue
from tidegate.telemetry import conventions as names
from tidegate.telemetry.metrics import Histogram, Metrics

OK = "ok"


class Measures:
    """The instruments of one gateway."""

    def __init__(self, metrics: Metrics) -> None:
        self.durations = metrics.histogram(catalogue.OPERATION_DURATION)
        self.first_chunks = metrics.histogram(catalogue.TIME_TO_FIRST_CHUNK)
        self.next_chunks = metrics.histogram(catalogue.TIME_PER_OUTPUT_CHUNK)
        self.tokens = metrics.histogram(catalogue.TOKEN_USAGE)
        self.waits = metrics.histogram(catalogue.QUEUE_WAIT)
        self._refusals = metrics.counter(catalogue.REFUSALS)
        self._retry_waits = metrics.histogram(catalogue.RETRY_AFTER)
        self._attempts = metrics.counter(catalogue.ATTEMPTS)
        self._continuations = metrics.counter(catalogue.CONTINUATIONS)
        self._of_kind: dict[tuple[str, str, str], KindMeasures] = {}

    def of_kind(self, operation: str, model: str, criticality: str) -> KindMeasures:
        """What is measured of generations of this kind, of which there are few."""
        kind = (operation, model, criticality)
        measures = self._of_kind.get(kind)
        if measures is None:
            measures = self._of_kind[kind] = KindMeasures(self, operation, model, criticality)
        return measures

    def attempt(self, worker_id: str, outcome: str, error_type: str | None) -> None:
        """An attempt at a worker has ended so."""
        ended = {names.SERVER_ADDRESS: worker_id, names.OUTCOME: outcome}
        if error_type is not None:
            ended[names.ERROR_TYPE] = error_type
        self._attempts.under(ended).add(1)

    def continuation(self) -> None:
        """A stream has lost its worker, and goes on with another one."""
        self._continuations.under({}).add(1)

    def refusal(self, reason: str, *, tenant: str, criticality: str, retry_after_s: float | None) -> None:
        """A generation has ended with an error, which may have told when to come back."""
        labels = {names.TENANT: tenant, names.CRITICALITY: criticality, names.ERROR_TYPE: reason}
        self._refusals.under(labels).add(1)
        if retry_after_s is not None:
            self._retry_waits.under({names.TENANT: tenant}).record(retry_after_s)


class KindMeasures:
    """Of generations that ask for the same operation of the same model, and are as critical."""

    def __init__(self, every: Measures, operation: str, model: str, criticality: str) -> None:
        """Use ``Measures.of_kind``."""
        self._every = every
        self._criticality = {names.CRITICALITY: criticality}
        self._operation = operation_labels = {
            names.GEN_AI_OPERATION_NAME: operation,
            names.GEN_AI_PROVIDER_NAME: names.PROVIDER,
            names.GEN_AI_REQUEST_MODEL: model,
        }
        self._durations: dict[str, Histogram] = {}  # by outcome
        self._waits: dict[str, Histogram] = {}
        self._first_chunk = every.first_chunks.under(operation_labels | self._criticality)
        self._next_chunk = every.next_chunks.under(operation_labels)
        self._input = every.tokens.under(operation_labels | {names.GEN_AI_TOKEN_TYPE: "input"})
        self._output = every.tokens.under(operation_labels | {names.GEN_AI_TOKEN_TYPE: "output"})

    def waited(self, seconds: float, outcome: str) -> None:
        """One waited so long for a worker; ``outcome`` is "admitted", or why it found none."""
        wait = self._waits.get(outcome)
        if wait is None:
            wait = self._waits[outcome] = self._every.waits.under(self._criticality | {names.OUTCOME: outcome})
        wait.record(seconds)

    def ended(self, seconds: float, outcome: str) -> None:
        """One took so long, from its arrival to its end."""
        duration = self._durations.get(outcome)
        if duration is None:
            failed = {} if outcome == OK else {names.ERROR_TYPE: outcome}
            duration = self._durations[outcome] = self._every.durations.under(self._operation | failed)
        duration.record(seconds)

    def answered(self, *, first_s: float, following_s: float, input_tokens: int, output_tokens: int) -> None:
        """One had its first token after ``first_s``, and all others in the time after that."""
        self._first_chunk.record(first_s)
        if output_tokens > 1:
            self._next_chunk.record(following_s / (output_tokens - 1))
        self._input.record(input_tokens)
        self._output.record(output_tokens)
