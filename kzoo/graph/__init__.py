"""The graph of a Keras model: its walk, what each layer costs and sees, and its inference form."""
