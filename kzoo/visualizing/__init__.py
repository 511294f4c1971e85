"""Looking inside a network: filters, feature maps, attributions, projections, reconstructions, and a report of them."""
