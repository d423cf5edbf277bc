"""The documentation site: `sphinx-build -W docs site`."""

from usk import __version__

project = "usk"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["studies/*/results"]
html_theme = "furo"
html_static_path = ["_static"]
html_title = "usk, the urban sound kit"
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "undoc-members": True, "exclude-members": "__init__, __new__"}
suppress_warnings = ["myst.xref_missing", "ref.python", "docutils"]
html_show_copyright = False
nitpicky = False
