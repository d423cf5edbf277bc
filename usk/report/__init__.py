"""What the user sees in the terminal. Nothing is computed here."""
