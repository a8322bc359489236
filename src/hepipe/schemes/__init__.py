"""What a ciphertext can do: schemes, keys, parameters, wire format. Nothing here knows a model."""
