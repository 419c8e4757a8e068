"""SMPLify-X as the paper ran it: bodies, hands and faces fitted to 2D or 3D joints, one optimisation each,
hundreds at once."""
