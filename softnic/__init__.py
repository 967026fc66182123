"""softnic: an embedded P4 target for bmv2 JSON, served over P4Runtime.

It knows nothing of Dysco.
"""
