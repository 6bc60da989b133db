"""What all tests share: drawn cases are the same in every run, and may take their time.

Since this file is here, the helpers beside it (`bases`, `op_checks`, `comparison`) can be imported
from the folders below too.
"""

from hypothesis import settings

settings.register_profile("same-cases", deadline=None, derandomize=True, database=None)
settings.load_profile("same-cases")
