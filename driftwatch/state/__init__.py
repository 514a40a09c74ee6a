"""State beyond one event: what was applied to each object, the inventory of kinds, the index of orphans."""
