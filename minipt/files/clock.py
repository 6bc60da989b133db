"""Times in UTC, as they are written and read.

In: a time, or what a user typed. Out: text such as 2026-11-28T12:20:18.123Z, whose order is that of
the times; or seconds since 1970.
"""

from datetime import UTC, datetime

from minipt.errors import MiniptError


def now() -> str:
    """The time in UTC."""
    return in_words(datetime.now(UTC))


def in_words(time: datetime) -> str:
    """A time of UTC as text, to the millisecond."""
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds_of(date: str) -> float:
    """A date or time in ISO's form, of UTC where it names no other zone, in seconds since 1970.

    Raises MiniptError for text that is none.
    """
    try:
        time = datetime.fromisoformat(date)
    except ValueError:
        raise MiniptError(
            f"{date!r:.60} is no date: write it such as 2026-11-28 or 2026-11-28T12:00:00Z"
        ) from None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
