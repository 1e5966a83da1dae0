"""The stages. Each runs as its own process and imports no other stage."""
