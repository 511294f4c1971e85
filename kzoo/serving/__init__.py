"""An export over HTTP: batches of several requests, TensorFlow Serving's paths, and a page."""
