"""Scheme-free encrypted mathematics: circuits written once, for any evaluator."""
