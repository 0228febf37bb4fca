"""The potentials that come with fkdrift, one file each, found through the entry-point group fkdrift.potentials."""
