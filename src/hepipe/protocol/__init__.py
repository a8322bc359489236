"""Two parties: rounds, links and transcripts, client and server."""
