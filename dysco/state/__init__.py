"""Commands that take a session's state out of one host and put it into another one's.

`dyscod` runs them (see docs/operating.md, "State commands"); each is a program of its own, and an
example: conntrack entries of a firewall or NAT, and live TCP sockets of an application.
"""
