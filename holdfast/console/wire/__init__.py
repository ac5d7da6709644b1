"""The protocol of the control socket for both ends: its place, the bodies, the answers, the errors."""
