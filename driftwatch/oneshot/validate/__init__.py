"""What Git declares, looked at before it is merged or applied: `driftwatch validate` and `driftwatch render`."""
