"""The views of sessions for people, read from any open store."""
