"""Moved to guidance/expressions and guidance/evaluation."""

from .guidance import evaluation, expressions
from .renamed import renamed

__getattr__ = renamed(__name__, expressions, evaluation, parts="subexpressions", terms="summands")
