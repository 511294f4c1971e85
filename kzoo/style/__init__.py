"""Style transfer: a picture with the content of one and the textures of another (Gatys, Ecker and Bethge 2016)."""

from kzoo.style.folder import stylize_folder
from kzoo.style.settings import Settings, StylenetOptions
from kzoo.style.transfer import Result, stylize

__all__ = ["Result", "Settings", "StylenetOptions", "stylize", "stylize_folder"]
