"""The Dysco protocol without I/O: events in, actions out.

No sockets, clocks, threads, asyncio or P4Runtime here; `dysco.controller` has those.
"""
