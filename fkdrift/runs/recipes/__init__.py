"""The generative models that `fkdrift learn` trains, one file for each."""
