"""What is kept of each object: what was applied, the inventory of kinds, the index of orphans."""
