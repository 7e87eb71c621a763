"""The HTTP server, the admin API and the command line around the guarded engine."""
