"""What people are shown of sessions, read from any open store."""
