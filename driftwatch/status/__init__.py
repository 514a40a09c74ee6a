"""The daemon's own status: the document and where its parts come from."""
