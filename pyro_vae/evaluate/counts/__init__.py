"""What a model of counts says of them: rates, loadings, differences between groups, topics."""
