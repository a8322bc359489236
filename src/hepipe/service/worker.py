"""A process that checks keys and evaluates: whatever a peer's bytes do to it, it does to this process alone.

The server talks to it over a pipe, in bytes: a job as JSON, then the bytes it is about. A worker asks for a model it
has not seen, relays rounds as frames, says as JSON what it took from a pool, and ends with a frame, or with a JSON
object for an error or a checked key. Between jobs it fills pools, a value at a time.
"""

from __future__ import annotations

import json
import os
import signal
import traceback
from collections import OrderedDict
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from hepipe.errors import HepipeError, KeyMismatch, MalformedFrame, PeerLost
from hepipe.models.bundle import Bundle, unpack
from hepipe.protocol.link import Link
from hepipe.protocol.parties import Server, registered
from hepipe.protocol.pipe import Channel, PipeLink
from hepipe.schemes.base import CipherTensor, FloatArray, PublicBundle
from hepipe.schemes.frames import split
from hepipe.schemes.wire import parameter_fields, unpack_keys
from hepipe.service.evaluators import Evaluators
from hepipe.service.keys import read_key
from hepipe.service.uploads import check_upload

IDLE_S = 86_400.0 * 365
NEED_MODEL = b"model?"
_MODELS = 16
"""That a worker keeps ready."""
_QUIET_S = 0.1
"""Without a job, before a worker begins to fill pools: the next one of a busy server comes sooner."""
_REFUSED = "the evaluation was refused: this tensor is not what the plan describes"


def run(connection: Connection, round_s: float, allow_insecure: bool) -> None:
    """Answer jobs until the server closes the pipe, or until an error that is none of ours; then the process is gone.

    At once: an interpreter that ran out of memory may never get through its own shutdown, and until the pipe closes
    the server takes it for one that computes. There is nothing to put away.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # the server decides when a worker ends
        signal.signal(number, signal.SIG_IGN)
    try:
        _answer_jobs(Channel(connection, round_s), Worker(allow_insecure))
    except PeerLost:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _answer_jobs(channel: Channel, worker: Worker) -> None:
    while job := _next_job(channel, worker.evaluators):
        channel.send(worker.answer(json.loads(job), channel))


def _next_job(channel: Channel, evaluators: Evaluators) -> bytes:
    """The next job; pools are filled until it comes, so it waits for one power at most."""
    quiet_s = _QUIET_S
    while not channel.waiting(quiet_s) and evaluators.fill_one():
        quiet_s = 0.0
    return channel.receive(IDLE_S)


class Worker:
    """The jobs, and what is kept between them."""

    def __init__(self, allow_insecure: bool) -> None:
        self._allow_insecure = allow_insecure
        self._models: OrderedDict[str, Bundle] = OrderedDict()
        self.evaluators = Evaluators()

    def answer(self, job: dict[str, Any], channel: Channel) -> bytes:
        """The last message of a job: a result, or an error by its name."""
        try:
            if job["task"] == "greet":
                return b"{}"
            if job["task"] == "check":
                return _json(self._checked(channel.receive()))
            return self._evaluated(job, channel)
        except PeerLost:
            raise
        except HepipeError as error:
            return _json({"error": type(error).__name__, "detail": str(error)})

    def _checked(self, data: bytes) -> dict[str, Any]:
        check_upload(data)
        bundle = registered(data, allow_insecure=self._allow_insecure)
        return {"key_id": bundle.key_id}

    def _evaluated(self, job: dict[str, Any], channel: Channel) -> bytes:
        frame = channel.receive()
        model = self._model(job["model"], channel)
        server = self._server(job, model)
        before = _stock(server)
        reply = evaluated(server, frame, model.model.profile.input_bound, job["parameters"], PipeLink(channel))
        ready, late = _stock(server)
        channel.send(_json({"ready": ready, "ahead": before[0] - ready, "late": late - before[1]}))
        return reply

    def _model(self, digest: str, channel: Channel) -> Bundle:
        if digest not in self._models:
            channel.send(NEED_MODEL)
            self._models[digest] = unpack(channel.receive())
        self._models.move_to_end(digest)
        while len(self._models) > _MODELS:
            self._models.popitem(last=False)
        return self._models[digest]

    def _server(self, job: dict[str, Any], model: Bundle) -> Server:
        name = (job["model"], job["key"])
        server = self.evaluators.get(name)
        if server is None:
            data = read_key(Path(job["key"]))
            bundle = self._stored(data)
            if parameter_fields(bundle.parameters) != job["parameters"]:
                raise KeyMismatch("this key has other parameters than the plan: make keys for this model's profile")
            server = Server(model.model, bundle, model.settings.policy, allow_insecure=self._allow_insecure)
            self.evaluators.add(name, server, len(data))
        return server

    def _stored(self, data: bytes) -> PublicBundle:
        """The keys of a file: its name is the digest of an upload whose proof was verified, which is not done again."""
        return unpack_keys(split(data)[0], allow_insecure=self._allow_insecure)


def evaluated(server: Server, frame: bytes, limits: FloatArray, parameters: dict[str, Any], link: Link) -> bytes:
    """The frame of the scores of a client's TENSOR frame.

    limits      |value| of every prepared feature; what the frame says of bounds is not believed
    parameters  the fields of the plan's

    Its errors may go to the client: none holds a bound, which would be a function of the weights.
    """
    x = server.unpack(frame)
    _check_input(x, parameters, len(limits))
    try:
        y = server.evaluate(x.with_bound(limits), link)
    except (MalformedFrame, KeyMismatch, PeerLost):
        raise
    except HepipeError as error:
        raise HepipeError(_REFUSED) from error
    return server.pack(y)


def _stock(server: Server) -> tuple[int, int]:
    """Blinding factors that are ready, and those that were drawn too late so far."""
    return (0, 0) if server.pool is None else (len(server.pool), server.pool.late)


def _check_input(x: CipherTensor, parameters: dict[str, Any], features: int) -> None:
    """MalformedFrame unless x is a fresh tensor of the planned width; what it says of bounds is not believed."""
    if x.shape[1] != features or x.blinded or x.log_scale != parameters["log_scale"]:
        raise MalformedFrame(f"a tensor of {x.shape[1]} features at scale {x.log_scale}: send what the plan says")
    if not np.isfinite(x.bound).all():
        raise MalformedFrame("a bound that is not finite")


def _json(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields).encode()
