"""What is written for others: dataset and model cards."""
