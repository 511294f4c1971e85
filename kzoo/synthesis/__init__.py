"""A picture from an objective: feature network, objective, losses, optimisers, tiles, memory, picture files."""
