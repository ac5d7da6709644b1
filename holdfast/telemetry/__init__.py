"""Observers of events: spans, logs and the trace that a message carries. Nothing below knows them."""
