"""STF, the format of P4's own tests: scripts that write tables, send packets and expect some.

softnic stf PROGRAM.json SCRIPT.stf
"""
