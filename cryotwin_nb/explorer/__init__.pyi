from .explorer import PathwayExplorer as PathwayExplorer
from .naming import NamingWidget as NamingWidget, name_components as name_components
