"""The prompt and its texts: from words to the loss, and from the loss to the prompt's gradient.

In: a base, a prompt, texts. Out: the loss and the gradient of the prompt's vectors, or answers.

    text          texts as token ids, in batches
    prompt_file   the file of a prompt, written, read and checked
    peft_adapter  the same as an adapter of Hugging Face's PEFT
    prompt        the vectors in front of the text
    starts        where they start
    readout       from hidden states to an answer
    shares        a batch in shares, one a thread
    wiring        one step of prompt tuning, in two wirings
    mixed         texts with prompts of their own, in one pass
    generate      writing on after a text
    verbalizer    how a base is asked, and which words it may answer
    responses     answers that are texts
"""
