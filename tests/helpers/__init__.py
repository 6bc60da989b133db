"""What the tests share: bases, cases, references."""
