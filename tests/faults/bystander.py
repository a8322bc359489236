"""Another tenant with keys and sessions of its own, who predicts before, during and after every fault."""

from __future__ import annotations

import secrets
import threading
from typing import Any

from faults.scene import Party, Scene
from service.test_protocol import post

RETRIES = 8


class Bystander:
    """In a ``with``: at every moment bob gets his right scores, and afterwards the stored reply of before.

    restarts  the server is restarted in the meantime: then a request may end in a typed error, until it is there again,
              and replies are forgotten; keys are not
    """

    def __init__(self, scene: Scene, restarts: bool) -> None:
        self._scene, self._restarts = scene, restarts
        self._parties = [scene.party("linear", "ckks", "bob"), scene.party("square", "paillier", "bob")]
        self._servers = [party.reached(retries=RETRIES) for party in self._parties]
        self._frame = self._linear.client.pack(self._linear.client.encrypt([[30, 5, 5]]))
        self._session = f"bystander-{secrets.token_hex(4)}"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._errors: list[BaseException] = []
        self.during = 0

    @property
    def _linear(self) -> Party:
        return self._parties[0]

    def __enter__(self) -> Bystander:
        self._before, self._uploads = self._stored(), self._scene.log.count("PUT")
        self._asks()
        self._thread.start()
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._stop.set()
        self._thread.join()
        if error is not None:
            return
        if self._errors:
            raise self._errors[0]
        assert self.during, "bob asked nothing while the fault lasted"
        self._asks()
        if self._restarts:
            assert self._scene.log.count("PUT") == self._uploads, "keys were lost"
        else:
            assert self._stored() == self._before, "bob's session was lost"
        for server in self._servers:
            server.close()

    def _stored(self) -> bytes:
        """The reply to one and the same request in bob's session."""
        answer = post(self._scene.running, self._frame, session=self._session, seq=1, tenant="bob")
        assert answer.status_code == 200, answer.text
        return bytes(answer.content)

    def _asks(self, lenient: bool = False) -> None:
        for party, server in zip(self._parties, self._servers, strict=True):
            ending = party.ends(lambda party=party, server=server: party.scores(server), attempts=RETRIES + 1)
            assert lenient or ending.how == "right", f"bob: {party.name} ended in {ending.how}"

    def _watch(self) -> None:
        while True:
            try:
                self._asks(self._restarts)
            except BaseException as error:
                self._errors.append(error)
                return
            self.during += 1
            if self._stop.wait(0.1):
                return
