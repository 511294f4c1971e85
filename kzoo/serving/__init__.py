"""An export over HTTP: TensorFlow Serving's paths, batches across requests, and a page."""
