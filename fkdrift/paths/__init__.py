"""Controlled diffusions and their trajectories: dr = (h + v) dt + sigma dB, with the path action l_T."""
