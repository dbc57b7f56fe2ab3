"""Frames over a socket, its length before each: the parent's end never waits, a worker's does.

Pickled messages are one frame; pixels follow as frames of their own, so that nothing copies them twice. Pipes and
shared memory would not do: a parent that waits to send to a process that hangs would hang too, and containers often
have 64 MB of shared memory for everything.
"""

from __future__ import annotations

import pickle
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

_LENGTH = struct.Struct("!Q")
_BUFFER = 2**20  # bytes; with the default, a crop of 224 pixels may wait for the parent half-way


def pickled(message: object) -> bytes:
    """Return a message as a frame's content."""
    return pickle.dumps(message, pickle.HIGHEST_PROTOCOL)


def unpickled(frame: bytearray) -> Any:
    """Return the message that a frame of one of this program's own processes holds."""
    return pickle.loads(frame)  # noqa: S301 - from a process that this one has started


class Channel:
    """The parent's end of a socket: sends what fits, keeps the rest, and receives what is there."""

    def __init__(self, end: socket.socket) -> None:
        end.setblocking(False)
        self._socket = end
        self._outbox: deque[memoryview] = deque()
        self._frame = bytearray(_LENGTH.size)
        self._filled = 0
        self._is_length = True

    @property
    def has_unsent(self) -> bool:
        """Whether something waits to be sent, by `flush`, when the socket takes it."""
        return bool(self._outbox)

    def fileno(self) -> int:
        """Return the socket's descriptor, for selectors."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close the socket; the process at the other end notices."""
        self._socket.close()

    def send(self, message: object) -> None:
        """Send a message, or as much of it as the socket takes now."""
        frame = pickled(message)
        self._outbox.append(memoryview(_LENGTH.pack(len(frame)) + frame))
        self.flush()

    def flush(self) -> None:
        """Send what waits, as far as the socket takes it. What a dead process does not take is dropped."""
        try:
            while self._outbox:
                rest = self._outbox[0][self._socket.send(self._outbox[0]) :]
                if rest:
                    self._outbox[0] = rest
                else:
                    self._outbox.popleft()
        except BlockingIOError:
            return
        except ConnectionError:  # receiving says so too
            self._outbox.clear()

    def receive(self) -> Iterator[bytearray]:
        """Yield the frames that have arrived whole.

        Raises
        ------
        EOFError
            After the last of them, if the other end has been closed.
        """
        while True:
            try:
                count = self._socket.recv_into(memoryview(self._frame)[self._filled :])
            except BlockingIOError:
                return
            except ConnectionError:
                count = 0
            if not count:
                raise EOFError
            self._filled += count
            if self._filled < len(self._frame):
                continue
            whole, self._filled = self._frame, 0
            self._frame = bytearray(_LENGTH.unpack(whole)[0] if self._is_length else _LENGTH.size)
            self._is_length = not self._is_length
            if self._is_length:
                yield whole


class WorkerChannel:
    """A worker's end of a socket: it waits until all is sent, or received."""

    def __init__(self, end: socket.socket) -> None:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER)
        self._socket = end

    def send(self, message: object, *more: NDArray[np.uint8]) -> None:
        """Send a message and further frames."""
        for frame in (memoryview(pickled(message)), *(array.data for array in more)):
            self._socket.sendall(_LENGTH.pack(frame.nbytes))
            self._socket.sendall(frame)

    def receive(self) -> Any:
        """Receive the next message.

        Raises
        ------
        EOFError
            If the other end has been closed.
        """
        return unpickled(self._exactly(_LENGTH.unpack(self._exactly(_LENGTH.size))[0]))

    def _exactly(self, length: int) -> bytearray:
        frame = bytearray(length)
        filled = 0
        while filled < length:
            count = self._socket.recv_into(memoryview(frame)[filled:])
            if not count:
                raise EOFError
            filled += count
        return frame
