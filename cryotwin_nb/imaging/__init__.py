"""How a density becomes an image: Fourier transforms, the CTF, slices of maps, masks."""
