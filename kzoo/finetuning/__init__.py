"""Fine-tuning: from a folder of photos to a classifier, through cached features, a head, and deeper stages."""
