"""A text that is never printed: passwords, private keys."""

from __future__ import annotations

from pydantic_core import PydanticCustomError, core_schema

REDACTED = "[redacted]"


class Sensitive:
    """Holds a text that no ``repr``, log line, dump or error shows; whoever needs it asks with `reveal`."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Give the text."""
        return self._text

    def __repr__(self) -> str:
        return REDACTED

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sensitive) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: object) -> core_schema.CoreSchema:
        def read(value: object) -> Sensitive:
            if isinstance(value, Sensitive):
                return value
            if not isinstance(value, str):
                raise PydanticCustomError("sensitive", "must be a text")
            return cls(value)

        return core_schema.no_info_plain_validator_function(
            read, serialization=core_schema.plain_serializer_function_ser_schema(lambda _: REDACTED)
        )
