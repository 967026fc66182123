"""Changing the chain of a live session: the anchors' protocol, and the data plane's rules."""
