"""fkdrift: quantum ground states by stochastic control."""
