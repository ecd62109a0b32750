"""What several test modules share: models with exact answers, tables of lines, small data."""
