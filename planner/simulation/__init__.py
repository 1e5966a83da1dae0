"""The discrete-event model of a cluster, on SimPy. Decisions are the product's functions; time is simulated."""
