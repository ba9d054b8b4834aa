"""Models of codes.

Folders of language models that speak, read into our parts and written as their makers wrote them: one file a family.
"""
