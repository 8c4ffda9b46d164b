"""Overload over real sockets: RETTER and its peers in front of a finite application.

`python -m benchmarks.overload` runs each scenario against each peer: the demonstration shop in a
process of its own, the peer in front of it, and an open-loop load generator that sends by the
clock. A closed-loop tool such as wrk waits for answers before it asks again, so a server that
stalls is spared and its clients' waiting goes unseen; hence a generator of our own
(retter/demo/load_generator.py), which counts latency from the time a request was meant to start.

What a figure means, for all peers alike:

fresh       a GET answered 2xx or 3xx within 3 s, with an answer that the application made after
            the request was meant to start (its X-Gen field)
stored      a GET answered 2xx or 3xx with an answer made before that
goodput     fresh GETs and POSTs answered within 3 s, a second, as a share of the capacity
trouble     GETs for which a good answer existed that got none: 4xx, 5xx, reset, no answer in 10 s
first       time from the start of the stress to the end of the first stored answer
again       time from the end of the stress to the first second with at least 99 % fresh GETs

refused     GETs, for known or new pages, that got no good answer
changes     of the circuit's state while the load lasts (RETTER only)
stored/failure    stored answers for each page that the application failed

Beside a crawler (crawl-20, crawl-5000) fresh, stored and errors are the visitors' GETs, those that
came again counted once, with the time from the first try; `new pages` were never asked for before:
the share that was answered; `crawler` is what the crawler got, as a share of the capacity.

The scenarios of a family (wide, burst, rare, pool, crawl) are chosen by its name: `--only burst`.

php-5x and database have real applications instead: a PHP shop, php-fpm and nginx
(benchmarks/overload/php), and a PHP blog with a MariaDB of ten connections
(benchmarks/overload/blog). Their capacity is measured before the trial and shown beside the
figures, as are the processors that other programs on the machine kept busy meanwhile. Without
their programs they are skipped.
"""
