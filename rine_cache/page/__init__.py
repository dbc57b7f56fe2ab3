"""The leaderboard as one page: a self-contained HTML file that asks for nothing over a network.

`payload` turns the leaderboard into what the page shows, `kept_curves` does so for curves, `plots` for ablations and
matrices, `wording` puts into sentences how numbers were made, `charts` describes the plots, `palette` has the colours,
and `build` puts all of it into `templates/`: the markup, the styles and the program that the browser runs, in parts of
one job each.
"""
