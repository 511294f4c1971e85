"""One file per family, each read from top to bottom: part, block, network. The rows are in `kzoo.catalog`."""
