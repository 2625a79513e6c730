"""What a user could take instead, a library a file: `prepare(cannon)` gives a function that aims.

Each is written as a user of that library would write it, for speed. None imports another one's library.
"""
