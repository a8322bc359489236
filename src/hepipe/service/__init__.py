"""The same two parties over a network: routes of the Open Inference Protocol, workers, keys, and the client."""
