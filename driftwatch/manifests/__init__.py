"""Parses YAML and JSON documents into manifests."""
