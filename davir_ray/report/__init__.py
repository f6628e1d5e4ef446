"""A run as one page that needs no server and no network; two runs or more as a comparison.

page.py          a run -> its page: what is gathered, written, and where
figures.py       the numbers of the page, from a pass over the scored table a part at a time: shares.py, sample.py
alternatives.py  the chosen score beside others that the same measurements give, and beside plain choices
shown_rows.py    rows with their text; token_colours.py: with the losses of their tokens
coreset_rows.py  the table of the core-set's rows
comparison.py    two runs joined by row: who is in one core-set alone, and why; comparison_page.py: as a page
recipe_text.py   its recipe, as one would write it
html.py          templates/ -> one file: what is foreign made safe, scripts and styles inlined under a strict policy
vendor/          uPlot, which draws the plots
"""
