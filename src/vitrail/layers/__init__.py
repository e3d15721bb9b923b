"""What everything is made of: tensors in, tensors out; knows torch only."""
