"""Counts the requests for WebSockets that were answered otherwise."""

from __future__ import annotations

import errno

from flask import Request, Response

from ..exceptions import EngineError, HandshakeError
from ..metrics.observers import Refusal
from ..metrics.worker import WorkerMetrics
from ..servers.upgrade import upgrade_of
from .routing import WebSocketRule


def count_refusal(
    metrics: WorkerMetrics, request: Request, answer: Response | BaseException
) -> None:
    """Count an upgrade request that got another answer than 101, or an exception, of the app."""
    upgrade = upgrade_of(request.environ)
    if upgrade.switched:
        return  # what failed is the end of a WebSocket; or it was counted
    status = answer.status_code if isinstance(answer, Response) else 500
    rule = request.url_rule
    if isinstance(rule, WebSocketRule):
        failure = upgrade.failure or answer
        detail = f"the app answered {status}" if isinstance(failure, Response) else str(failure)
        refusal = Refusal(status, _reason(failure), rule.pattern, detail)
    elif request.routing_exception is not None:
        refusal = Refusal(status, "not_found", None, "no route of a WebSocket has this URL")
    else:
        return  # a view has answered, and why not
    metrics.report_refusal(request.environ, refusal)


def _reason(answer: Response | BaseException) -> str:
    if isinstance(answer, HandshakeError):
        return answer.kind
    if isinstance(answer, EngineError):
        return "engine"
    if isinstance(answer, OSError) and answer.errno in (errno.EMFILE, errno.ENFILE):
        return "full"
    return "app"
