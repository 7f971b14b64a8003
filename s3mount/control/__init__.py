"""The socket of a mount: status and metrics out, commands in."""
