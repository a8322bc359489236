"""Models: a function of an evaluator between two public maps."""
