"""Everything with I/O: devices over P4Runtime, the daemon `dyscod`, its API, and `dysco-ctl`."""
