"""hepipe: machine learning on homomorphically encrypted data, Paillier and CKKS behind one interface.

Depth is paid in levels or in rounds: a circuit of multiplicative depth k costs k levels on a levelled scheme (CKKS)
and k rounds with the key holder on an additive one (Paillier). The circuit is written once.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hepipe.models.importers import from_sklearn
    from hepipe.models.logistic import with_sigmoid
    from hepipe.models.torch_importer import from_torch
    from hepipe.protocol.parties import Client, Server
    from hepipe.schemes.registry import scheme
    from hepipe.service.client import RemoteServer
    from hepipe.service.mailbox import MailboxServer
    from hepipe.study.compare import compare
    from hepipe.study.datasets import load
    from hepipe.study.estimators import EncryptedClassifier, EncryptedClusterer, EncryptedRegressor
    from hepipe.study.plan import plan
    from hepipe.study.trainer import EncryptedTrainer
    from hepipe.training.federated import FederatedRidge
    from hepipe.training.labels import labels_only

__version__ = "0.1.0"
__all__ = [
    "Client",
    "EncryptedClassifier",
    "EncryptedClusterer",
    "EncryptedRegressor",
    "EncryptedTrainer",
    "FederatedRidge",
    "MailboxServer",
    "RemoteServer",
    "Server",
    "compare",
    "from_sklearn",
    "from_torch",
    "labels_only",
    "load",
    "plan",
    "scheme",
    "with_sigmoid",
]

# Loaded when first used, so that the command line answers at once, and can say so when a package below is missing.
_HOMES = {
    "Client": "protocol.parties",
    "EncryptedClassifier": "study.estimators",
    "EncryptedClusterer": "study.estimators",
    "EncryptedRegressor": "study.estimators",
    "EncryptedTrainer": "study.trainer",
    "FederatedRidge": "training.federated",
    "MailboxServer": "service.mailbox",
    "RemoteServer": "service.client",
    "Server": "protocol.parties",
    "compare": "study.compare",
    "from_sklearn": "models.importers",
    "from_torch": "models.torch_importer",
    "labels_only": "training.labels",
    "load": "study.datasets",
    "plan": "study.plan",
    "scheme": "schemes.registry",
    "with_sigmoid": "models.logistic",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'hepipe' has no attribute {name!r}: it has {__all__}")
    try:
        return getattr(import_module(f"hepipe.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if name != "RemoteServer":
            raise
        raise ImportError(f"{error}: to ask servers, pip install 'hepipe[service]'") from error


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
