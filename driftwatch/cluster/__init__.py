"""The API server: credentials, requests, discovery, watches, server-side apply."""
