"""Files and directories that are complete or absent, never half; and files that are fetched.

In: bytes, arrays, names of packages. Out: files that a reader can trust.

    diagnose   what lies at a path that could not be read, and what to do
    formats    the one reader of JSON, and the one reader of tensors
    complete   write a file or a directory as a whole
    records    arrays and facts with their sha256
    versions   what made a file
    clock      times in UTC
    fetch      archives by name, version and sha256, kept in a cache
"""
