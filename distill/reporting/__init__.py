"""Tables, figures and the report, as markdown and as an HTML page."""
