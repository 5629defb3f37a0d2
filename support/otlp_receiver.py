"""OTLP receiver: a collector in its own process that accepts OTLP over gRPC.

`python -m support.otlp_receiver` first prints its address. It then prints a line for each export:
the signal, and the request in base64.
"""

import base64
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from subprocess import PIPE, Popen
from threading import Condition, Lock, Thread
from typing import IO, Any

import grpc
from google.protobuf.message import Message
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as traces
from opentelemetry.proto.trace.v1.trace_pb2 import Span

_SERVICES = {
    "opentelemetry.proto.collector.trace.v1.TraceService": (
        "traces",
        traces.ExportTraceServiceRequest,
        traces.ExportTraceServiceResponse,
    ),
    "opentelemetry.proto.collector.metrics.v1.MetricsService": (
        "metrics",
        metrics.ExportMetricsServiceRequest,
        metrics.ExportMetricsServiceResponse,
    ),
}
_TIMEOUT_S = 20


def main() -> None:
    """Receive exports until killed."""
    server = grpc.server(ThreadPoolExecutor(4))
    lock = Lock()
    for service, (signal, _, response) in _SERVICES.items():

        def export(
            request: bytes, _: Any, signal: str = signal, response: Any = response
        ) -> Message:
            with lock:
                print(signal, base64.b64encode(request).decode(), flush=True)
            made: Message = response()
            return made

        handler: Any = grpc.unary_unary_rpc_method_handler(
            export, None, lambda message: message.SerializeToString()
        )
        handlers = grpc.method_handlers_generic_handler(service, {"Export": handler})
        server.add_generic_rpc_handlers((handlers,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"127.0.0.1:{port}", flush=True)
    server.wait_for_termination()


class Receiver:
    """Exports that a collector has received so far."""

    def __init__(self, endpoint: str, lines: IO[str]) -> None:
        self.endpoint = endpoint
        self.spans: list[Span] = []
        self.metrics: set[str] = set()
        self.raw: list[bytes] = []
        """All requests, serialised, in order of arrival."""
        self._changed = Condition()
        self._thread = Thread(target=self._read, args=[lines], daemon=True)
        self._thread.start()

    def wait_for_spans(self, is_enough: Callable[[list[Span]], bool]) -> list[Span]:
        """Wait until the received spans are enough, and return them."""
        with self._changed:
            has_come = self._changed.wait_for(lambda: is_enough(self.spans), _TIMEOUT_S)
            assert has_come, sorted(span.name for span in self.spans)
            return list(self.spans)

    def wait_for_trace(self, trace_id: str, *names: str) -> list[Span]:
        """Wait for spans of all these names, and return all spans of the trace.

        Give a name twice to wait for two: the spans of client and service have the same name.
        """
        trace = bytes.fromhex(trace_id)

        def select(spans: Sequence[Span]) -> list[Span]:
            return [span for span in spans if span.trace_id == trace]

        return select(
            self.wait_for_spans(
                lambda spans: Counter(names) <= Counter(span.name for span in select(spans))
            )
        )

    def wait_for_metrics(self, *names: str) -> None:
        """Wait for metrics of all these names."""
        with self._changed:
            has_come = self._changed.wait_for(lambda: set(names) <= self.metrics, _TIMEOUT_S)
            assert has_come, self.metrics

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            signal, data = line.split()
            request = base64.b64decode(data)
            with self._changed:
                self.raw.append(request)
                if signal == "traces":
                    for resource in traces.ExportTraceServiceRequest.FromString(
                        request
                    ).resource_spans:
                        for scope in resource.scope_spans:
                            self.spans += scope.spans
                else:
                    self.metrics |= {
                        metric.name
                        for resource in metrics.ExportMetricsServiceRequest.FromString(
                            request
                        ).resource_metrics
                        for scope in resource.scope_metrics
                        for metric in scope.metrics
                    }
                self._changed.notify_all()


@contextmanager
def run_receiver() -> Iterator[Receiver]:
    """Run a collector in its own process."""
    command = [sys.executable, "-m", "support.otlp_receiver"]
    with Popen(command, stdout=PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Receiver(process.stdout.readline().strip(), process.stdout)
        finally:
            process.kill()


if __name__ == "__main__":
    main()
