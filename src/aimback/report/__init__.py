"""The verdict people can read: one page of HTML that needs no network, and the same in Markdown.

Every number comes from the files of one run; what was not measured in it is a dash.
"""
