"""Text in four languages from grammars and lexicons of our own: the demo's only data source."""
