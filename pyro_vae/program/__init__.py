"""Any Pyro model and guide, with the face that evaluation and training ask for."""
