"""What is counted: in each worker, by route; its snapshot, and sums of several."""
