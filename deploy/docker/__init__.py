"""How the image is made, and what runs in it besides Sluice."""
