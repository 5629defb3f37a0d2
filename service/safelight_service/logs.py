"""Logs: one line per event on standard error, as text or JSON, with trace ids.

Log records and warnings of libraries take the same form.
"""

import atexit
import logging
import os
import sys
from typing import TextIO, cast

import structlog

from safelight_service.settings import Settings
from safelight_settings import LogWriter

_STANDARD_ERROR = 2


def configure_logs(settings: Settings) -> LogWriter:
    """Configure structlog and the standard library's logging for the process.

    Returns the writer of the lines. The interpreter closes it at exit; `os._exit` does not.
    """
    renderer: structlog.typing.Processor = structlog.processors.JSONRenderer()
    if settings.log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=os.isatty(_STANDARD_ERROR))
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    processors: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _add_trace,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    writer = LogWriter()
    atexit.register(writer.close)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, writer)),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(writer)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, _shorten, *processors],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(level, logging.WARNING), force=True)
    # These log baggage or metadata that they cannot parse, in full.
    logging.getLogger("opentelemetry.baggage").setLevel(logging.CRITICAL)
    logging.getLogger("grpc").propagate = False
    logging.captureWarnings(True)
    log = structlog.get_logger()
    writer.on_dropped = lambda count: log.warning("log_lines_dropped", count=count)
    return writer


def _shorten(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Reduce a library's message to its first line, and an exception to its type."""
    event["event"] = str(event["event"]).partition("\n")[0]
    if error := event.pop("exc_info", None):
        event["error_type"] = error[0].__name__
    return event


def _add_trace(
    logger: object, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Add the ids of the current span, if tracing is on."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            event.setdefault("trace_id", format(context.trace_id, "032x"))
            event.setdefault("span_id", format(context.span_id, "016x"))
    return event
