"""The P4Runtime server of softnic: native code in front, a `softnic.dataplane.DataPlane` below.

    server/ (C)   gRPC; plain Writes, packet-outs and packet-ins end there
      '-- front.py                      what it hands over, and what it must be shown
    service.py    the RPCs: who may, where to
      |-- arbitration.py, roles.py      who is primary, and of what
      |-- stream.py, packetio.py        StreamChannel: answers, packet-outs that are wrong
      |-- pipeline.py, schema.py        P4Info and program, checked against each other
      |-- writer.py, reader.py          entities, with tables.py, pre.py, profiles.py, meters.py
      |-- notifier.py, digests.py       events of the data plane to the primary
      `-- codec.py, errors.py           byte strings and statuses
    server.py     threads for what is handed over

Follows the P4Runtime specification 1.4.0; section numbers in comments are its.
"""
