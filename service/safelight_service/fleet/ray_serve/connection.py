"""Ray connection: bounds calls of Ray, which may wait for ever for a cluster that has died."""

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import ray
from ray.exceptions import RayError

from safelight_service.settings import RaySettings

Result = TypeVar("Result")

NAMESPACE = "safelight"


def connect(settings: RaySettings) -> None:
    """Connect this process to the cluster, unless it is connected.

    Raises:
        ConnectionError: the cluster does not answer in time.
    """
    logging.getLogger("asyncio").addFilter(is_no_cancelled_call)
    if not ray.is_initialized():
        # It warns that `call_ray` is not the main thread.
        logging.getLogger("ray._private.worker").setLevel(logging.ERROR)
        call_ray(
            settings,
            lambda: ray.init(
                address=settings.address,
                namespace=NAMESPACE,
                log_to_driver=False,
                configure_logging=False,
            ),
        )


def is_no_cancelled_call(record: logging.LogRecord) -> bool:
    """Return whether a record of asyncio is about more than a cancelled call to a dead engine.

    Serve does not retrieve the errors of such calls, which asyncio would log.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not (isinstance(error, RayError) and "never retrieved" in record.getMessage())


def call_ray(settings: RaySettings, call: Callable[[], Result]) -> Result:
    """Return the result of a call of Ray, which a thread of its own makes.

    Ray replaces the handler of SIGTERM in the main thread only.

    Raises:
        ConnectionError: the cluster does not answer within `connect_s`.
    """
    answer: Future[Result] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, name="safelight-ray", daemon=True).start()
    try:
        return answer.result(settings.connect_s)
    except TimeoutError:
        raise ConnectionError(
            f"the Ray cluster at {settings.address} does not answer within {settings.connect_s:g} s"
        ) from None
