"""H = sum_i p_i^2 / (2 m_i) + V(r): potentials and how they are loaded, trial functions, and the system they make."""
