"""What one packet goes through: states, tables, actions, externs, copies, and where it leaves.

softnic trace PROGRAM.json PACKETS.pcap --entries ENTRIES.stf

    traced build --records--> events (typed) --> text, or JSON
"""
