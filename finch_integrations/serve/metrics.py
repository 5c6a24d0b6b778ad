"""What a server counts, for Prometheus; nothing of it comes from the requests' contents."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from finch_integrations.pipeline.ask import AnswerDetails

_SECONDS = (0.1, 0.3, 1, 3, 10, 30, 100, 300)


class Metrics:
    """The numbers of one server."""

    def __init__(self) -> None:
        """Start at zero."""
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter(
            "finch_requests", "Requests by path and status", ["path", "status"], registry=registry
        )
        self.active = Gauge("finch_active_requests", "Run or wait", registry=registry)
        self._seconds = Histogram(
            "finch_answer_seconds",
            "From a request to the end of its answer",
            buckets=_SECONDS,
            registry=registry,
        )
        self._tokens = Counter(
            "finch_tokens", "Tokens by what they are of", ["kind"], registry=registry
        )

    def count(self, path: str, status: int) -> None:
        """Count a response."""
        self._requests.labels(path, status).inc()

    def answered(self, details: AnswerDetails, seconds: float) -> None:
        """Count an answer."""
        self._seconds.observe(seconds)
        self._tokens.labels("answers").inc(details.generation_tokens)
        if stats := details.compression:
            self._tokens.labels("documents").inc(stats.document_tokens)
            self._tokens.labels("kept").inc(stats.kept_tokens)
            self._tokens.labels("read").inc(stats.read_tokens)

    def write(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self._registry)
