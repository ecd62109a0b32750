"""How the site is built: ``make docs``, offline, with warnings as errors."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import pyro_vae

project = "pyro_vae"
author = "the pyro_vae authors"
release = pyro_vae.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "mathematics",
    "generated",
]
myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3
nb_execution_mode = "auto"
nb_execution_excludepatterns = ["course/*"]  # shown as they were committed
nb_execution_timeout = 200
nb_execution_raise_on_error = True
nb_ipywidgets_js = {}
exclude_patterns = ["build", "jupyter_execute"]

autodoc_typehints = "none"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
default_role = "literal"

html_theme = "furo"
html_title = "pyro_vae"
html_math_renderer = "mathml"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "native"
