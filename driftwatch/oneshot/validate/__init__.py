"""`driftwatch validate` and `driftwatch render`: check and print manifests before they are merged or applied."""
