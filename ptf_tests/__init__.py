"""Packet tests (PTF) of the P4 program: one device, no controller. PTF itself runs `tests`."""
