"""The Promela model of the reconfiguration protocol, and what runs it."""
