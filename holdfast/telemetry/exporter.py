"""The exporter process: reads packed records from its parent, encodes them as OTLP and posts them, at a low processor priority.

`python -m holdfast.telemetry.exporter FD` is started by `link`. It never stops reading, whatever the collector does. It ends when its
parent closes the pipe or has ended, after a few seconds in which it posts its last spans.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator

from holdfast.telemetry import conventions, otlp, wire
from holdfast.telemetry.posting import Poster
from holdfast.telemetry.spans import Spans

NICE = 10
_CHUNK = 1 << 18


def main() -> None:
    """Export until the parent has ended."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # sent to the whole service: the spans of the parent's drain still have to be posted
    os.nice(NICE)
    with socket.socket(fileno=int(sys.argv[1])) as pipe:
        bodies = _bodies(pipe)
        first = next(bodies, None)
        if first is not None:
            _export(pipe, wire.read_config(first), bodies)
    os._exit(0)  # the poster may still wait for a collector that does not answer


def _export(pipe: socket.socket, config: wire.Config, bodies: Iterator[bytes]) -> None:
    poster = Poster(config, otlp.Envelope(dict(config.resource), conventions.SCOPE, config.version), _reporter(pipe))
    spans = Spans()
    for body in bodies:
        batch = wire.read_batch(body)
        if poster.full:
            poster.drop(sum(1 for record in batch.records if type(record) is not wire.Noted))
        else:
            poster.put([otlp.span(span) for span in spans.of(batch)])
    poster.close(config.flush_s)


def _bodies(pipe: socket.socket) -> Iterator[bytes]:
    frames = wire.Frames()
    while data := _read(pipe):
        yield from frames.feed(data)


def _read(pipe: socket.socket) -> bytes:
    try:
        return pipe.recv(_CHUNK)
    except ConnectionError:
        return b""  # the parent has ended, with reports unread


def _reporter(pipe: socket.socket) -> Callable[[wire.Report], None]:
    def report(value: wire.Report) -> None:
        try:
            pipe.send(wire.frame(value), socket.MSG_DONTWAIT)
        except OSError:
            return  # the parent does not read, or has ended: the next report contains this one

    return report


if __name__ == "__main__":
    main()
