"""``python -m pyro_vae``."""

from .cli import main

main()
