"""How the cluster is shipped, and parts of it run elsewhere. Knows no service's inside."""
