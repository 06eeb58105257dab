"""The pool's @cache: what was worked out once and need not be again. Derived, disposable, never the truth."""
