"""Logs: one line an event on standard error, for people or as JSON, with the ids of its trace.

What libraries log goes the same way.
"""

import logging
import sys

import structlog

from safelight_service.settings import Settings


def configure_logs(settings: Settings) -> None:
    """Set structlog and the standard library's logging up for the whole process."""
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if settings.log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _add_trace,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, _tell_no_text, *processors],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    # These would log the whole of a baggage or of metadata that they cannot read.
    logging.getLogger("opentelemetry.baggage").setLevel(logging.CRITICAL)
    logging.getLogger("grpc").propagate = False


def _tell_no_text(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Cut what libraries log down to its first line, and an exception to its type."""
    event["event"] = str(event["event"]).partition("\n")[0]
    if error := event.pop("exc_info", None):
        event["error_type"] = error[0].__name__
    return event


def _add_trace(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Add the ids of the current span, where there are traces at all."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            event.setdefault("trace_id", format(context.trace_id, "032x"))
            event.setdefault("span_id", format(context.span_id, "016x"))
    return event
