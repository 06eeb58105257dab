"""Whether a document fits its plugin's schema, and if not, the one fault most worth telling.

jsonschema-rs decides; this module chooses among its errors and gives them a spot. The words come from
`opfs.core.fault`. Defaults are not filled in: what is stored is what the user wrote. Pure and thread-safe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jsonschema_rs

from opfs.core.fault import Fault, Weight, describe
from opfs.core.position import locate
from opfs.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from opfs.core.action import Document

FULL_REPORT_BYTES = 16 * 1024
"""Documents up to this size have all their errors found, about 10 µs each and possibly one for every value;
larger ones only the first, so that a hostile mebibyte costs no seconds."""

_ERRORS_WEIGHED = 50
_FAULTS_LOCATED = 10  # each costs a pass over the document


class DocumentSchema:
    """A plugin's JSON Schema (2020-12), compiled. Raises InvalidRequest if it is no schema.

    References to other documents are not followed; `format` is checked.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.schema = dict(schema)
        try:
            # the mask keeps documents, which may be large or secret, out of the library's own messages
            self._validator = jsonschema_rs.Draft202012Validator(
                self.schema, validate_formats=True, offline=True, mask="the value"
            )
        except (jsonschema_rs.ValidationError, ValueError) as error:
            raise InvalidRequest(f"the schema is not valid JSON Schema: {error}") from error

    def check(self, document: Document, content: bytes) -> None:
        """Raise InvalidRequest, with the spot in `content` that `document` was parsed from, unless it fits.

        Under a microsecond for a small document that fits; finding the spot of a fault in a mebibyte of tiny
        values takes up to half a second, so callers with an event loop check large documents in a thread.
        """
        if self._validator.is_valid(document):
            return
        errors = self._errors(document, len(content))
        faults = [describe(error, self.schema, document) for error in errors[:_ERRORS_WEIGHED]]
        weight = min(fault.weight for fault in faults)
        equals = [fault for fault in faults if fault.weight == weight][:_FAULTS_LOCATED]
        located = [(locate(content, fault.pointer, key=fault.at_key), fault) for fault in equals]
        location, fault = min(located, key=lambda pair: (pair[0].line, pair[0].column))
        # a key that is missing because it is misspelt is one fault
        misspelt = {found.missed for found in faults if found.weight is Weight.MISSPELT_KEY}
        told = [
            error
            for index, error in enumerate(errors)
            if index >= len(faults)
            or faults[index].weight is not Weight.MISSING
            or faults[index].missed not in misspelt
        ]
        hint = _with_count(fault, len({spot for error in told for spot in _spots(error)}) - 1)
        raise InvalidRequest(fault.reason, hint=hint, location=location)

    def _errors(self, document: Document, size: int) -> Sequence[jsonschema_rs.ValidationError]:
        if size <= FULL_REPORT_BYTES:
            return list(self._validator.iter_errors(document))
        try:
            self._validator.validate(document)
        except jsonschema_rs.ValidationError as error:
            return [error]
        raise AssertionError("a document is valid or it is not")


def _spots(error: jsonschema_rs.ValidationError) -> list[tuple[str | int, ...]]:
    """What of the document an error is about: one value, or each of the unknown keys."""
    path = tuple(error.instance_path)
    keys: list[str] = getattr(error.kind, "unexpected", None) or []
    return [(*path, key) for key in keys] or [path]


def _with_count(fault: Fault, others: int) -> str:
    if not others:
        return fault.hint
    more = f"({others} more {'fault' if others == 1 else 'faults'} in this document)"
    return f"{fault.hint} {more}".lstrip()
