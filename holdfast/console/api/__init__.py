"""The control API: what a running process answers over its socket."""
