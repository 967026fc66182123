"""From the JSON that p4c writes for bmv2 to C.

json ──load──▶ ir ──layout, expressions, parsers, actions, tables, deparser──▶ C source
"""
