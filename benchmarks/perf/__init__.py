"""What a request costs: RETTER, its peers and three floors, each alone on one core.

The main figure is CPU microseconds a request of the proxy's processes. The load comes from wrk in
short windows, all peers in turn, because a shared machine changes its speed within seconds: what
is compared was measured next to each other.

    scenarios    what is asked, how often, over how many connections
    peers        who answers: configurations, start and end
    machine      cores, /proc, versions
    load         wrk: command, script, what it reports
    idle         idle connections held beside
    runner       the rounds
    figures      from windows to figures
    results      the JSON file
    report       tables and plots
    compare      two results and what of the difference is noise
    profiling    flame graphs and allocations
    floors       the least that Python can do, and the naive proxy
"""
