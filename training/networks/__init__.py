"""Networks: the parts of the model and how each is trained."""
