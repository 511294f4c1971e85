"""The catalog: what each model is (rows), published weights, shipped weights. Standard library only."""

from kzoo.catalog import rows  # noqa: F401  registers every row
from kzoo.catalog.model_spec import RULES, ModelSpec, Paper, Preprocessing, Weights, agrees, printed
from kzoo.catalog.registry import image_spec, imports_of, list_models, register, spec

__all__ = [
    "RULES",
    "ModelSpec",
    "Paper",
    "Preprocessing",
    "Weights",
    "agrees",
    "image_spec",
    "imports_of",
    "list_models",
    "printed",
    "register",
    "spec",
]
