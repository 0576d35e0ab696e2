"""What hpo shows in a browser.

dashboard.py  optuna-dashboard's pages on a server of their own
door.py       which requests reach those pages, and with which headers answers leave
keys.py       the token: who has shown it, and how often it may be guessed
answers.py    the door's own answers, and its one page
"""
