"""From the weights of other people to a base.

In: a name, a directory in Hugging Face's format, a .gguf file or a hub id. Out: a `Base`.

    families        three families of models, and the names in their files
    pooling         what an encoder's files say about the way from rows to a vector
    tokenizer_file  the tokenizer beside the weights
    gguf_file       llama.cpp's files
    named_bases     the bases that have a name, and where they come from
    load            from a name, a directory or a file to a base, and back
"""
