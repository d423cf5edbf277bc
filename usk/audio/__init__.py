"""Audio to mel image and back, batched, on any device."""
