"""A picture from an objective: compiled network, objective, losses, optimisers, tiles, memory, picture files."""
