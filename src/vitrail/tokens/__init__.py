"""Which tokens belong together, and the way back: what mixers and reducers both stand on.

assignment and matching say who belongs to whom, selection who is chosen, hashing gives short codes,
clusterers put these behind one contract, plans carry updates back to all tokens.
"""
