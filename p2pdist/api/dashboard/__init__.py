"""The dashboard: a page of the admin listener, and what it shows.

routes: the page's files and the routes that it asks; live: the sections, computed once for all who look, and their
stream; assets: the page itself, plain HTML, CSS and JavaScript modules, served as they are.
"""
