"""The leaderboard as one page: a self-contained HTML file that asks for nothing over a network.

`payload` turns the leaderboard into what the page shows, `plots` does so for curves, ablations and matrices, `charts`
describes the plots, `palette` has the colours, and `build` puts all of it into `templates/`: the markup, the styles and
the program that the browser runs.
"""
