"""Several models beside one another: held-out log p(x), stacking, another prior."""
