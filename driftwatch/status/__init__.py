"""The daemon's status: the JSON document and its sources."""
