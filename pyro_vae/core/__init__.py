"""What every room uses: seeds, TOML, checks of numbers."""
