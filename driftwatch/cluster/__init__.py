"""Access to the API server: credentials, requests, discovery, watches and server-side apply."""
