"""What both ends of the control socket agree on: its place, the bodies, the answers, the errors."""
