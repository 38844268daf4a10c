"""What adapters, a server, a command line and a remote client import: values and errors, no torch."""
