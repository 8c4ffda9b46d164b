"""A discrete-event simulation of overload, driving the production controller with a virtual clock.

python -m benchmarks.simulation             everything, beside classic breakers
python -m benchmarks.simulation --quick     a subset, in seconds
python -m benchmarks.simulation.cost        what the controller costs a request
"""
