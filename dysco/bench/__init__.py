"""The experiments: each beside its baseline in one run, with figures and plots.

    cli ──▶ forward, connect, goodput, memory ──▶ result ──▶ out/bench/NAME.json
               │        each alternates                 └──▶ plot, summary
               ▼
            lane, chain: what is measured, and its baseline   (dysco.topo)
            tools: C programs that make the load

Figures are reported, never asserted. `python -m dysco.bench --help`.
"""
