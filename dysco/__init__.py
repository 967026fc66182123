"""Dysco on P4: dynamic service chaining as a session protocol."""
