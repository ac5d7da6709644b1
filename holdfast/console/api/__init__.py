"""The control API that a running process serves over its socket."""
