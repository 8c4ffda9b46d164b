"""The cost of abuse: RETTER and nginx, in turn, under messages that repeat something or are tiny.

`python -m benchmarks.abuse` starts an application, RETTER and nginx, each proxy alone on one core,
and sends each kind of abuse to both over loopback. The figure is the CPU time of the proxy for each
KB that has been sent to it.

    kinds        what is sent
    attack       how it is sent
    report       the table, benchmarks/abuse.md
"""
