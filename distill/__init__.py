"""What two stages need, or a formula that deserves its own test. Imported, never run."""
