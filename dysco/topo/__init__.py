"""Hosts, links, NICs and real middleboxes in network namespaces; the demo.

    spec ──▶ topology ──▶ devices ──▶ controller ──▶ boxes, traffic, capture ──▶ demo
    what      namespaces,  softnic,    dyscod          what runs on it,
    it is     links        bmv2, ...   dysco-ctl       what it saw

All of it runs in a cage (cage.py), in which nothing can be left behind.
"""
