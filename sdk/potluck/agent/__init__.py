"""What runs in a sandbox that has no function: does what its owner's program asks."""
