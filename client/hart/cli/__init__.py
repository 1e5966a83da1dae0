"""The command `hart`: one file per subcommand. It knows the client, and nothing of servers."""
