"""From YAML and JSON documents to manifests."""
