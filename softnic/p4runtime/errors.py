"""Errors as P4Runtime reports them: one canonical code and text, alone or one per update."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from finsy.proto import p4r, rpc_status

_ERROR_TYPE_URL = "type.googleapis.com/p4.v1.Error"
_TEXT_BUDGET = 4096
"""Bytes of text in one batch's details: clients take 8 KiB of metadata by default."""
_MOST_DETAILS = 40_000
"""Bytes of a batch's details: in base64 they must fit HTTP/2's 64 KB of trailers."""


class Code(IntEnum):
    """Canonical codes of google.rpc, under their own names."""

    OK = 0
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14


class P4RuntimeError(Exception):
    """A request, or one update of it, that is refused."""

    def __init__(self, code: Code, message: str, details: bytes = b"") -> None:
        """`details`: a google.rpc.Status, for the RPC's trailer `grpc-status-details-bin`."""
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


def invalid(message: str) -> P4RuntimeError:
    """INVALID_ARGUMENT, the most common refusal."""
    return P4RuntimeError(Code.INVALID_ARGUMENT, message)


def unimplemented(message: str) -> P4RuntimeError:
    """UNIMPLEMENTED: this target doesn't do it."""
    return P4RuntimeError(Code.UNIMPLEMENTED, message)


def batch_status(message: str, results: Sequence[P4RuntimeError | None]) -> bytes:
    """The google.rpc.Status of a batch: one p4.v1.Error for each element, in order (12.3).

    Texts beyond the budget are left out, codes never: a status that exceeds the client's limit
    on metadata would reach it as RESOURCE_EXHAUSTED without any detail.
    """
    status = rpc_status.Status(code=Code.UNKNOWN, message=message)
    budget = _TEXT_BUDGET
    for result in results:
        error = p4r.Error(canonical_code=Code.OK)
        if result is not None:
            text = result.message if len(result.message) <= budget else ""
            budget -= len(text)
            error = p4r.Error(canonical_code=result.code, message=text, space="softnic-v1model")
        detail = status.details.add()
        detail.type_url = _ERROR_TYPE_URL
        detail.value = error.SerializeToString()
    return status.SerializeToString()


def batch_error(what: str, results: Sequence[P4RuntimeError | None]) -> P4RuntimeError:
    """UNKNOWN, with the status of every element; one of them at least failed."""
    failed = [r for r in results if r is not None]
    first = next((r for r in failed if r.code is not Code.ABORTED), failed[0])
    message = f"{len(failed)} of {len(results)} {what} failed; first: {first.message}"
    details = batch_status(message, results)
    if len(details) > _MOST_DETAILS:
        return P4RuntimeError(Code.UNKNOWN, f"{message} (too many for the status of each)")
    return P4RuntimeError(Code.UNKNOWN, message, details)
