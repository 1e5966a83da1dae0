"""The command `hart`, one module per subcommand. It uses the client only."""
