"""k-means by Lloyd's algorithm on points that their owner has given away encrypted (Lloyd, IEEE Trans. IT 28, 1982).

The trainer keeps the encrypted points and centres; the owner keeps nothing but its key, and helps. An iteration:

    trainer: distances = sum over columns of (x - c)**2      products     0 rounds, or 1 masked round on Paillier
    owner:   decrypts them, encrypts which centre is nearest              1 round
    trainer: sums of the points of each centre, and counts   products     0 rounds, or 1 masked round on Paillier
    owner:   decrypts them, encrypts the quotients                        1 round

The trainer learns how many points, columns, centres and iterations there are, nothing of points or centres. The owner
learns the distances and the centres of every iteration, all of which it could have computed from its points: this is
outsourcing with the owner's help, for an owner that stores no points; it saves storage, not work.

and once more the distances, for labels and inertia. On CKKS all points share a ciphertext a column: 3,000 points of 13
columns, 3 centres and 5 iterations take 4 s of one core at 128 bits. On Paillier every product is a masked one of a
single point, 2 n k d of them an iteration and 0.08 s each at 3072 bits: for some dozens of points.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.cluster import KMeans

from hepipe.errors import IllPosed, InsecureParameters, MalformedFrame, OutOfRange, Unsupported
from hepipe.models.profile import Profile
from hepipe.models.schema import Schema
from hepipe.protocol.interactive import Interactive
from hepipe.protocol.link import Link
from hepipe.protocol.parties import Client, public_bundle
from hepipe.schemes.base import CipherTensor, Evaluator, FloatArray, PublicBundle
from hepipe.schemes.dry import DryEvaluator
from hepipe.schemes.frames import HEADER_BYTES, Frame, Kind, kind_of, parse, tensor_bytes
from hepipe.schemes.parameters import MODULUS_BITS, CkksParameters, PaillierParameters
from hepipe.schemes.registry import evaluator_of
from hepipe.schemes.wire import pack_tensor, unpack_tensor

Ask = Callable[[Kind, CipherTensor, tuple[int, int], float], CipherTensor]
"""(question, its tensor, shape of the answer, bound of the answer) -> the owner's answer."""


@dataclass(frozen=True, eq=False)
class LloydPlan:
    """What a clustering takes, known before any key exists; ``bytes_up`` and ``bytes_down`` of owner and trainer.

    error_bound  of a squared distance in prepared units, where points lie within [-1, 1]
    """

    parameters: Any
    profile: Profile
    samples: int
    clusters: int
    iterations: int
    rounds: int
    bytes_up: int
    bytes_down: int
    error_bound: float
    policy: str = "polynomial"
    reveals: str = "distances and centres of every iteration, to the owner of the points"


@dataclass(frozen=True, eq=False)
class Clustering:
    """Centres (clusters, features) and inertia in raw units, and the label of each point (samples,)."""

    centres: FloatArray
    labels: npt.NDArray[np.intp]
    inertia: float

    def estimator(self) -> KMeans:
        """A fitted scikit-learn KMeans with these centres, which ``hepipe.from_sklearn`` takes."""
        clusters = len(self.centres)
        fitted = KMeans(clusters, init=self.centres, n_init=1, max_iter=1).fit(self.centres)
        fitted.cluster_centers_, fitted.labels_, fitted.inertia_ = self.centres.copy(), self.labels, self.inertia
        return fitted


def lloyd_plan(
    schema: Schema, samples: int, clusters: int, iterations: int, scheme: str = "ckks", security_bits: int = 128
) -> LloydPlan:
    """The plan for ``samples`` points within ``schema``, with fixed scales; security_bits 0 is for tests and insecure.

    Unsupported for another scheme than "ckks" or "paillier"; OutOfRange for fewer than one iteration or two clusters;
    InsecureParameters for a security that the ring or the modulus does not have.
    """
    if iterations < 1 or not 2 <= clusters <= samples:
        raise OutOfRange(f"{iterations} iterations for {clusters} clusters of {samples} points: 1 and 2 at least")
    parameters, profile = _parameters(scheme, security_bits), _profile(schema)
    features, ev = len(schema.columns), DryEvaluator(parameters)
    sizes = {"up": 0, "down": 0, "rounds": 0}

    def ask(kind: Kind, x: CipherTensor, shape: tuple[int, int], bound: float) -> CipherTensor:
        sizes["rounds"] += 1
        sizes["down"] += HEADER_BYTES + tensor_bytes(parameters, ev.rerandomize(x).shape, 0)
        sizes["up"] += tensor_bytes(parameters, shape, parameters.depth, fresh=True)
        return ev.fresh(shape, bound)

    x, centres = ev.fresh((samples, features), profile.input_bound), ev.fresh((samples, clusters * features), 1.0)
    sizes["up"] += sum(tensor_bytes(parameters, each.shape, parameters.depth, fresh=True) for each in (x, centres))
    for _ in range(iterations):
        centres = _iteration(ev, ask, x, centres)
    last = ev.rerandomize(_distances(ev, x, centres))
    sizes["down"] += tensor_bytes(parameters, last.shape, 0) + tensor_bytes(parameters, centres.shape, 0)
    return LloydPlan(
        parameters, profile, samples, clusters, iterations, ev.rounds + sizes["rounds"],
        ev.bytes_up + sizes["up"], ev.bytes_down + sizes["down"], ev.error_bound(last),
    )  # fmt: skip


class PointsOwner(Client):
    """Owns the points, which it may forget once encrypted, and the key. Learns what it could compute from the points.

    ``encrypt`` and ``pack`` the points, then ``start``; ``link`` answers the trainer; ``read`` what comes back.
    """

    def __init__(self, plan: LloydPlan) -> None:
        super().__init__(plan)
        self._plan = plan

    def start(self, centres: npt.ArrayLike) -> CipherTensor:
        """The first centres, raw of shape (clusters, features), encrypted; OutOfRange outside the schema."""
        return self._spread(self.profile.prepare(centres))

    def answer(self, request: bytes) -> bytes:
        """The owner's half of a round."""
        kind = kind_of(request)
        if kind == Kind.ASSIGNMENT:
            distances = self._asked(request, Kind.ASSIGNMENT, (self._plan.samples, self._plan.clusters))
            nearest = np.eye(self._plan.clusters)[distances.argmin(axis=1)]
            return self.pack(self._encryptor.encrypt(nearest, 1.0))
        if kind == Kind.CENTRES:
            clusters, features = self._plan.clusters, len(self.profile.input_bound)
            sums = self._asked(request, Kind.CENTRES, (1, clusters * (features + 1)))[0]
            return self.pack(self._spread(_quotients(sums, clusters)))
        return super().answer(request)

    def read(self, centres: CipherTensor, distances: CipherTensor) -> Clustering:
        """The result in raw units."""
        found = self.decrypt(centres)[0].reshape(self._plan.clusters, -1)
        squared, profile = self.decrypt(distances), self._plan.profile
        inertia = float(squared.min(axis=1).sum()) * float(profile.half[0]) ** 2
        return Clustering(found * profile.half + profile.centre, squared.argmin(axis=1), inertia)

    def _asked(self, request: bytes, kind: Kind, shape: tuple[int, int]) -> FloatArray:
        frame = parse(request, kind)
        x = unpack_tensor(frame.body, self._bundle)
        if x.shape != shape or (frame.samples, frame.features, frame.level, frame.log_scale) != (*shape, 0, 0.0):
            raise MalformedFrame(f"a question of shape {x.shape}, expected {shape}")
        return self.decrypt(x)

    def _spread(self, centres: FloatArray) -> CipherTensor:
        """All centres in every row, a column for each of their columns, so that they meet every point."""
        limits = np.tile(self.profile.input_bound, self._plan.clusters)
        rows = np.tile(np.clip(centres.ravel(), -limits, limits), (self._plan.samples, 1))
        return self._encryptor.encrypt(rows, limits)


class LloydTrainer:
    """Keeps points and centres encrypted and does the arithmetic. Learns the counts of the plan, nothing else."""

    def __init__(self, public: PublicBundle | bytes, *, allow_insecure: bool = False) -> None:
        self._bundle = public_bundle(public, allow_insecure)
        self._evaluator = evaluator_of(self._bundle)

    def fit(
        self, points: CipherTensor, centres: CipherTensor, link: Link, iterations: int
    ) -> tuple[CipherTensor, CipherTensor]:
        """(centres, distances) after ``iterations``, re-randomised for the owner.

        A fixed number of iterations, since when it has converged would tell about the points. Price: the plan's.
        """
        ev = Interactive(self._evaluator, link, self._bundle)

        def ask(kind: Kind, x: CipherTensor, shape: tuple[int, int], bound: float) -> CipherTensor:
            question = pack_tensor(ev.rerandomize(x), self._bundle)
            frame = Frame(kind, self._bundle.parameters.name, self._bundle.key_id, *x.shape, 0, 0.0, question)
            answer = unpack_tensor(link.request(kind.name.lower(), frame.to_bytes()), self._bundle)
            if answer.shape != shape or answer.level != self._bundle.parameters.depth:
                raise MalformedFrame(f"an answer of shape {answer.shape}, expected {shape} at the full level")
            return answer.with_bound(np.asarray(bound))

        for _ in range(iterations):
            centres = _iteration(ev, ask, points, centres)
        return ev.rerandomize(centres), ev.rerandomize(_distances(ev, points, centres))


def _iteration(ev: Evaluator, ask: Ask, x: CipherTensor, centres: CipherTensor) -> CipherTensor:
    """Assign and average: the next centres, in every row."""
    clusters = centres.shape[1] // x.shape[1]
    nearest = ask(Kind.ASSIGNMENT, _distances(ev, x, centres), (x.shape[0], clusters), 1.0)
    return ask(Kind.CENTRES, _sums(ev, x, nearest), centres.shape, 1.0)


def _distances(ev: Evaluator, x: CipherTensor, centres: CipherTensor) -> CipherTensor:
    """Squared distances, shape (samples, clusters). Price 1 / 1."""
    features = x.shape[1]
    clusters = range(centres.shape[1] // features)
    apart = [ev.sub(x, ev.take(centres, range(j * features, (j + 1) * features))) for j in clusters]
    squares = ev.mul_pairs([(each, each) for each in apart])
    return ev.join([_across(ev, square) for square in squares])


def _across(ev: Evaluator, x: CipherTensor) -> CipherTensor:
    """The sum of all columns, shape (samples, 1). Price 0 / 0."""
    total = ev.take(x, [0])
    for column in range(1, x.shape[1]):
        total = ev.add(total, ev.take(x, [column]))
    return total


def _sums(ev: Evaluator, x: CipherTensor, nearest: CipherTensor) -> CipherTensor:
    """For each centre the sum of its points, then all counts: shape (1, clusters * (features + 1)). Price 1 / 1."""
    masks = [ev.take(nearest, [j] * x.shape[1]) for j in range(nearest.shape[1])]
    sums = [ev.sum_samples(own) for own in ev.mul_pairs([(mask, x) for mask in masks])]
    counts = ev.sum_samples(nearest)
    return ev.join([*sums, ev.mul_plain(counts, 1.0, log_scale=sums[0].log_scale)])


def _quotients(sums: FloatArray, clusters: int) -> FloatArray:
    counts = np.rint(sums[-clusters:])
    if (counts < 1).any():
        raise IllPosed(f"centre {int(counts.argmin())} has no point left: start from other centres, or fewer")
    return np.asarray(sums[:-clusters].reshape(clusters, -1) / counts[:, None])


def _profile(schema: Schema) -> Profile:
    """One scale for all columns, so that distances keep their proportions."""
    profile = Profile.of("clustering", schema, 1)
    return replace(profile, half=np.full_like(profile.half, profile.half.max()))


def _parameters(scheme: str, security_bits: int) -> Any:
    """One product, then sums over samples: the same at every size, more points make more blocks."""
    insecure = security_bits == 0
    if security_bits not in MODULUS_BITS:
        raise InsecureParameters(f"security_bits={security_bits}: use one of {sorted(MODULUS_BITS)}")
    if scheme == "paillier":
        size = MODULUS_BITS[security_bits]
        return PaillierParameters(size, 40, 40, lane_bits=size - 2, lanes=1, depth=1, insecure=insecure)
    if scheme == "ckks":
        degree, standard = 1024 if insecure else 8192, max(security_bits, 128)
        steps = tuple(1 << i for i in range((degree // 2).bit_length() - 1))
        sizes = (60, 40, 60)
        return CkksParameters(degree, sizes, 40.0, standard_bits=standard, insecure=insecure, rotations=steps)
    raise Unsupported(f"no clustering on {scheme!r}: use 'ckks', or 'paillier' for few points")
