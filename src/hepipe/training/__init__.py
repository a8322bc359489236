"""Learning on encrypted data."""
