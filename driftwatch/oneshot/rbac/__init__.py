"""What the daemon may do in the cluster: the least role for what its sources declare."""
