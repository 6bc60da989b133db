"""Asking whether it works: many runs compared, and one run looked at from many sides.

Read them in this order: `jobs`, which does every run once; `sweep`, made of such runs; `count` and
`cost`, what a step costs and why; `compare`, the rivals side by side; `ensemble` and `transfer`;
`neighbours`, `influence` and `reading`, what a prompt's vectors say; `claims` and `evidence`, ten
published claims put to the test; `commands`, which prints all of it.
"""
