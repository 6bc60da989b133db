"""A training step as a page that one can click through.

In: a base, a prompt and one text. Out: one HTML file, with its data and script inside.

    steps       some training steps on one text
    summary     a step as text, as JSON and as a picture
    places      where an array stands, and what its axes are
    operations  what each array is, in a formula and a sentence
    sources     what each array and each gradient is made from
    ways        how the gradient reached the prompt, layer by layer
    numbers     one buffer of bytes, compressed
    fitting     which arrays a page holds whole
    openings    the arithmetic of a chosen set of numbers
    snapshot    one step of the page
    contents    all that a page shows
    document    the page as one file
    xray        the function `minipt.xray`

`page.html`, the styles and the scripts are what a browser shows. `README.md` describes the data.
"""
