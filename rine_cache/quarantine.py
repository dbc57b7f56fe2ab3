"""Why an image could not be used. Its row is kept, marked, counted, and never scored."""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """The reasons, as stored in a cache's `/reason`; numbers are never reused."""

    NONE = 0
    MISSING = 1
    FORBIDDEN = 2
    EMPTY = 3
    NOT_AN_IMAGE = 4
    DAMAGED = 5
    TOO_LARGE = 6
    UNSUPPORTED_MODE = 7
    NOT_FINITE = 8
    CRASHED = 9
    HUNG = 10


class UnreadableImageError(Exception):
    """One image is quarantined. It never reaches the user as an error: a bad image stops no run."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
