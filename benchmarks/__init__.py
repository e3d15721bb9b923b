"""What Vitrail's speed claims rest on; ``README.md`` beside this file is the contract."""
