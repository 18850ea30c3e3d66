"""Send messages between two processes that need not trust each other.

A message is JSON and a list of raw byte strings, never pickle:

    header length (4 bytes) | header: JSON of [message, lengths] | the bytes

Sizes are capped before anything is read into memory.
"""

import json
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO

Message = dict[str, Any]
LENGTH = struct.Struct("!I")
MOST_HEADER = 4 << 20  # bytes
MOST_BYTES = 64 << 20  # bytes of all tensors in one message


class WireError(BaseException):
    """What the other side says is no message; no check may swallow this."""


class GoneError(WireError):
    """The other side is gone."""


class DeadlineError(BaseException):
    """The other side took too long."""


@contextmanager
def well_formed() -> Iterator[None]:
    """Take what goes wrong within for a fault of the message.

    Raises:
        WireError: in place of what any look into a forged message may raise.
    """
    try:
        yield
    except Exception as error:
        raise WireError(f"this is no message ({error})") from None


class Channel:
    """One end of a connection.

    Attributes:
        deadline: the time (of ``time.monotonic``) at which waiting ends, or
            None to wait for ever.
    """

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self.deadline: float | None = None

    def send(self, message: Message, blobs: Iterable[Any] = ()) -> None:
        """Send a message and its bytes.

        Raises:
            WireError: if it is too large.
            GoneError: if nobody is there to read it.
            DeadlineError: if the other side doesn't read it in time.
        """
        views = [memoryview(blob).cast("B") for blob in blobs]
        header = json.dumps([message, [view.nbytes for view in views]])
        data = header.encode()
        if len(data) > MOST_HEADER:
            raise WireError(f"a message of {len(data):,} bytes is too long")
        if sum(view.nbytes for view in views) > MOST_BYTES:
            raise WireError(
                f"tensors of more than {MOST_BYTES >> 20} MiB at once"
            )
        self._write(b"".join([LENGTH.pack(len(data)), data]))
        for view in views:
            self._write(view)

    def receive(self) -> tuple[Message, list[bytearray]]:
        """Wait for a message and its bytes.

        Raises:
            WireError: if it is malformed or too large.
            GoneError: if none will come.
            DeadlineError: if it doesn't come in time.
        """
        (length,) = LENGTH.unpack(self._read(LENGTH.size))
        if length > MOST_HEADER:
            raise WireError(f"a message of {length:,} bytes is too long")
        try:
            message, lengths = json.loads(self._read(length))
            sizes = [int(size) for size in lengths]
        except (ValueError, TypeError, RecursionError):
            raise WireError("this is no message") from None
        if not isinstance(message, dict) or min(sizes, default=0) < 0:
            raise WireError("this is no message")
        if sum(sizes) > MOST_BYTES:
            raise WireError(
                f"tensors of more than {MOST_BYTES >> 20} MiB at once"
            )
        return message, [self._read(size) for size in sizes]

    def close(self) -> None:
        """Let the other side see that nothing more will come."""
        self.socket.close()

    def _left(self) -> float | None:
        """Return the seconds that are left to wait."""
        if self.deadline is None:
            return None
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise DeadlineError
        return left

    def _write(self, data: Any) -> None:
        rest = memoryview(data)
        try:
            while rest:
                self.socket.settimeout(self._left())
                rest = rest[self.socket.send(rest) :]
        except TimeoutError:
            raise DeadlineError from None
        except OSError:
            raise GoneError("the other side is gone") from None

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        rest = memoryview(data)
        try:
            while rest:
                self.socket.settimeout(self._left())
                count = self.socket.recv_into(rest)
                if not count:
                    raise GoneError("the other side is gone")
                rest = rest[count:]
        except TimeoutError:
            raise DeadlineError from None
        except OSError:
            raise GoneError("the other side is gone") from None
        return data


class PipeChannel(Channel):
    """A connection over two pipes, for systems that can't hand on sockets.

    A pipe can't be waited for with a deadline there: whoever has one ends the
    other process in time, and this reads the end of the file.
    """

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self.reader = reader
        self.writer = writer
        self.deadline = None

    def close(self) -> None:
        """Let the other side see that nothing more will come."""
        self.reader.close()
        self.writer.close()

    def _write(self, data: Any) -> None:
        try:
            self.writer.write(data)
            self.writer.flush()
        except (OSError, ValueError):
            self._left()
            raise GoneError("the other side is gone") from None

    def _read(self, size: int) -> bytearray:
        data = bytearray(size)
        try:
            count = self.reader.readinto(data) if size else 0
        except (OSError, ValueError):
            count = 0
        if count != size:
            self._left()
            raise GoneError("the other side is gone")
        return data
