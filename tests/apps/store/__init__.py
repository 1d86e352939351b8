"""The store app, in process and over HTTP."""
