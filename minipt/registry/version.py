"""A version: a prompt that is kept under a name and a number, and what is known about it."""

from dataclasses import dataclass, field

from minipt.files.records import is_number


@dataclass(frozen=True)
class Version:
    """One version. Neither its number nor anything else of it ever changes.

    sha256: of the prompt's file. created: in UTC. parent: the version that it was tuned on from,
    such as "spam@1". fingerprint: the base's. record: run.json, or what the prompt alone knows.
    tags: those that were on it when it was read. Of what is not known the properties are None.
    """

    name: str
    number: int
    sha256: str
    created: str
    message: str
    parent: str | None
    fingerprint: str
    record: dict = field(repr=False)
    tags: tuple[str, ...] = ()
    row: int = field(default=0, repr=False)  # its id in the tables

    @property
    def reference(self) -> str:
        """Such as spam@2."""
        return f"{self.name}@{self.number}"

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that the prompt chooses from; none for one that writes."""
        labels = self.record.get("labels")
        return tuple(map(str, labels)) if isinstance(labels, list) else ()

    @property
    def accuracy(self) -> float | None:
        """The accuracy on the test split."""
        accuracy = self.record.get("test_accuracy")
        return accuracy if is_number(accuracy) else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The accuracy's 95 % interval."""
        interval = self.record.get("interval")
        sound = isinstance(interval, list) and len(interval) == 2 and all(map(is_number, interval))
        return tuple(interval) if sound else None

    def text(self, key: str) -> str | None:
        """What the record says in words under this key, such as "base" or "task"."""
        value = self.record.get(key)
        return value if isinstance(value, str) else None

    def part(self, key: str) -> dict:
        """What the record says under this key, such as "settings" or "data"; {}: nothing."""
        value = self.record.get(key)
        return value if isinstance(value, dict) else {}

    def describe(self) -> dict:
        """All of it, for JSON."""
        names = ("name", "number", "sha256", "created", "message", "parent", "fingerprint")
        about = {name: getattr(self, name) for name in names}
        return about | {"tags": list(self.tags), "record": self.record}
