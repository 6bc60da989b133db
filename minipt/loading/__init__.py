"""Weights of other people, as a base of minipt's.

In: a name, a directory in Hugging Face's format, a .gguf file, a hub id. Out: a `Base`.

    families     three families of models, and what their files call things
    gguf_file    llama.cpp's files
    named_bases  the bases that have a name, and where they come from
    load         from what the user names to a base
"""
