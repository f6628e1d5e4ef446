"""What leaves a run for other people, and comes from them.

score_table.py    the file of a score table: what it says of itself, and how that is checked
table_export.py   a run -> a score table
table_import.py   a score table -> ordinary parts of a store
hub.py            a run -> a data set on the Hugging Face hub; hub_card.py, licences.py,
                  reaching_hub.py
names.py          names without this machine's folders
"""
