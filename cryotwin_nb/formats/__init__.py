"""The only place that knows file formats: MRC, STAR, cryoSPARC .cs, cryoDRGN .pkl and ChimeraX scripts.

Each reader of particles returns a `metadata.Metadata`; conventions are converted here and nowhere else.
"""
