"""Requests to model providers as calls: the clients, the dialects of their APIs, streams, prices and meters."""
