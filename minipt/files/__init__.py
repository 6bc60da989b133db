"""Files that are complete or absent, never half; and files that are fetched.

In: bytes, arrays, names of packages. Out: files that a reader can trust.

    complete   write and read a file or a directory as a whole
    versions   what made a file
    fetch      archives by name, version and sha256, kept in a cache
"""
