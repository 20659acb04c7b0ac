"""Results for other programs: particles for RELION, cryoSPARC and cryoDRGN, maps for ChimeraX, a cryoDRGN run read."""
