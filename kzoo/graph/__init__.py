"""The graph of a Keras model: its traversal, what each layer costs, receptive fields, and the inference form."""
