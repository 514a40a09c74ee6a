"""Git: mirrors, credentials, commands, signatures."""
