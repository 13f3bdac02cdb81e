"""The OpenAPI document that Cog builds from ``predict.py``, made without Cog.

Cog's command line reads the signature of ``predict()`` without running it and silently drops what
it cannot read; Cog's server checks requests only against ``.cog/openapi_schema.json``. This script
writes that file from notations that need no evaluation, and names every place that uses another.

    python scripts/cog_schema.py [PREDICT_PY] [--output .cog/openapi_schema.json]
"""

import argparse
import ast
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

JSON_TYPES = {
    "bool": {"type": "boolean"},
    "float": {"type": "number"},
    "int": {"type": "integer"},
    "str": {"type": "string"},
    "Path": {"format": "uri", "type": "string"},
}
JSON_NAMES = {"description": "description", "ge": "minimum", "le": "maximum", "regex": "pattern"}
JSON_NAMES |= {"min_length": "minLength", "max_length": "maxLength", "accept": "x-cog-accept"}

# Cog copies literals out of the text, so it is the text that is checked, not the value: an escape,
# a prefix, a second string, a comment or a pair of parentheses is enough to garble or lose it.
_STRING = r""" (?: "[^"\\\n]*" | '[^'\\\n]*' ) """
_RAW = r""" r"[^"\n]*" | r'[^'\n]*' """
_NUMBER = r" -? (?: 0 | [1-9]\d* ) (?: \.\d* )? (?: [eE][+-]?\d+ )? "
_LITERAL = rf" (?: {_STRING} | {_NUMBER} | None | True | False ) "
_LIST = rf" \[ \s* (?: {_LITERAL} \s* (?: , \s* {_LITERAL} \s* )* ,? \s* )? \] "
_PLAIN_STRING = (_STRING, "one plain string: no concatenation, parentheses, prefix or escapes")
_NOTATION = {
    "default": (f"{_LITERAL} | {_LIST}", "a plain literal, or a constant of this file that is one"),
    "choices": (_LIST, "a list of plain literals, or a constant of this file that is one"),
    "regex": (f"{_STRING} | {_RAW}", "one plain or raw string"),
    **dict.fromkeys(("description", "accept"), _PLAIN_STRING),
    **dict.fromkeys(("ge", "le", "min_length", "max_length"), (_NUMBER, "a plain number")),
}

# What Cog writes around the inputs and the output, whatever they are.
_ENVELOPE = """{"components": {"schemas": {
"PredictionRequest": {"properties": {"id": {"title": "Id", "type": "string"}, "input": {"$ref": "#/components/schemas/Input"}}, "title": "PredictionRequest", "type": "object"},
"PredictionResponse": {"properties": {"completed_at": {"format": "date-time", "title": "Completed At", "type": "string"}, "created_at": {"format": "date-time", "title": "Created At", "type": "string"}, "error": {"title": "Error", "type": "string"}, "id": {"title": "Id", "type": "string"}, "input": {"$ref": "#/components/schemas/Input"}, "logs": {"title": "Logs", "type": "string"}, "metrics": {"title": "Metrics", "type": "object"}, "output": {"$ref": "#/components/schemas/Output"}, "started_at": {"format": "date-time", "title": "Started At", "type": "string"}, "status": {"title": "Status", "type": "string"}, "version": {"title": "Version", "type": "string"}}, "title": "PredictionResponse", "type": "object"},
"Status": {"description": "An enumeration.", "enum": ["starting", "processing", "succeeded", "canceled", "failed"], "title": "Status", "type": "string"},
"HTTPValidationError": {"properties": {"detail": {"items": {"$ref": "#/components/schemas/ValidationError"}, "title": "Detail", "type": "array"}}, "title": "HTTPValidationError", "type": "object"},
"ValidationError": {"properties": {"loc": {"items": {"anyOf": [{"type": "string"}, {"type": "integer"}]}, "title": "Location", "type": "array"}, "msg": {"title": "Message", "type": "string"}, "type": {"title": "Error Type", "type": "string"}}, "required": ["loc", "msg", "type"], "title": "ValidationError", "type": "object"}}},
"info": {"title": "Cog", "version": "dev"}, "openapi": "3.0.2", "paths": {
"/": {"get": {"operationId": "root__get", "responses": {"200": {"content": {"application/json": {"schema": {}}}, "description": "Successful Response"}}, "summary": "Root"}},
"/health-check": {"get": {"operationId": "healthcheck_health_check_get", "responses": {"200": {"content": {"application/json": {"schema": {}}}, "description": "Successful Response"}}, "summary": "Healthcheck"}},
"/predictions": {"post": {"description": "Run a single prediction on the model", "operationId": "predict_predictions_post", "requestBody": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/PredictionRequest"}}}}, "responses": {"200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/PredictionResponse"}}}, "description": "Successful Response"}, "422": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/HTTPValidationError"}}}, "description": "Validation Error"}}, "summary": "Predict"}},
"/predictions/{prediction_id}/cancel": {"post": {"operationId": "cancel_predictions__prediction_id__cancel_post", "parameters": [{"in": "path", "name": "prediction_id", "required": true, "schema": {"title": "Prediction Id", "type": "string"}}], "responses": {"200": {"content": {"application/json": {"schema": {}}}, "description": "Successful Response"}, "422": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/HTTPValidationError"}}}, "description": "Validation Error"}}, "summary": "Cancel"}}}}"""  # noqa: E501


@dataclass(frozen=True, kw_only=True)
class FieldType:
    """The type of an input or of the output; ``name`` is a key of ``JSON_TYPES``."""

    name: str
    repeated: bool = False
    optional: bool = False


@dataclass(frozen=True, kw_only=True)
class InputField:
    """One parameter of ``predict()``; None means not stated, except for ``default``."""

    name: str
    type: FieldType
    has_default: bool = False
    default: Any = None
    description: str | None = None
    ge: float | None = None
    le: float | None = None
    min_length: int | None = None
    max_length: int | None = None
    regex: str | None = None
    choices: Sequence[str | int] | None = None
    accept: str | None = None


@dataclass(frozen=True, kw_only=True)
class Signature:
    """What ``predict()`` takes, in order, and what it returns."""

    inputs: tuple[InputField, ...]
    output: FieldType


def read_signature(source: str) -> Signature:
    """Reads ``Predictor.predict`` from the text of predict.py, never importing it.

    Raises:
        ValueError: If ``violations(source)`` is not empty; the message lists them.
    """
    reader = _Reader(source)
    signature = reader.read()
    if signature is None or reader.violations:
        raise ValueError("\n".join(reader.violations))
    return signature


def violations(source: str) -> list[str]:
    """Names every place where Cog's static parse would not see what Python sees."""
    reader = _Reader(source)
    reader.read()
    return reader.violations


class _Reader:
    """One pass over the text that collects the signature and what is wrong with it."""

    def __init__(self, source: str) -> None:
        self.violations: list[str] = []
        self._source = source
        self._body = ast.parse(source).body
        self._constants: dict[str, str] = {}
        for node in self._body:
            if isinstance(node, ast.Assign | ast.AnnAssign):
                name, _, value = self._text(node).partition("=")
                self._constants[name.partition(":")[0].strip()] = value.strip()

    def read(self) -> Signature | None:
        for node in self._body:
            if isinstance(node, ast.ImportFrom):
                self._check_import(node)
        methods = [
            method
            for owner in self._body
            if isinstance(owner, ast.ClassDef) and owner.name == "Predictor"
            for method in owner.body
            if isinstance(method, ast.FunctionDef) and method.name == "predict"
        ]
        if not methods:
            self.violations.append("there is no method Predictor.predict()")
            return None
        predict = methods[-1]  # as at run time, the last definition counts
        if predict.decorator_list:
            self._report(predict, "a decorator on predict() hides its signature from the server")
        output = self._type(predict.returns, "the return value", predict)
        if output and output.optional:
            self._report(predict, "the return value cannot be optional")
        inputs = self._inputs(predict.args, predict)
        return Signature(inputs=inputs, output=output) if output else None

    def _check_import(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            name = alias.asname or alias.name
            if node.module == "cog" and name != alias.name:
                self._report(node, f"cog's {alias.name} must keep its name, not become {name}")
            elif node.module != "cog" and name in ("Path", "Input"):
                self._report(node, f"{name} must be cog's, not that of {node.module}")

    def _inputs(self, args: ast.arguments, predict: ast.FunctionDef) -> tuple[InputField, ...]:
        if args.posonlyargs or args.vararg or args.kwonlyargs or args.kwarg:
            self._report(predict, "predict() takes plain parameters only: no *, / or **")
        calls = [None] * (len(args.args) - len(args.defaults)) + args.defaults
        fields = []
        for parameter, call in list(zip(args.args, calls, strict=True))[1:]:  # [0] is self
            name = parameter.arg
            kind = self._type(parameter.annotation, name, parameter)
            given = {} if call is None else self._stated(name, call)
            if kind is None:
                continue
            if "default" in given and given["default"] is None and not kind.optional:
                self._report(parameter, f"{name}: default=None needs Optional, or it is required")
            fields.append(InputField(name=name, type=kind, has_default="default" in given, **given))
        return tuple(fields)

    def _type(self, node: ast.expr | None, owner: str, place: ast.AST) -> FieldType | None:
        kind = _field_type(node)
        if node is None:
            self._report(place, f"{owner}: the type annotation is missing")
        elif kind is None:
            known = f"{', '.join(JSON_TYPES)}, or list[...] or Optional[...] of these"
            hint = "instead of Literal or Enum, state choices"
            self._report(node, f"{owner}: {self._text(node)} is not one of {known}; {hint}")
        return kind

    def _stated(self, name: str, call: ast.expr) -> dict[str, Any]:
        """Reads the keywords of one call of ``Input`` as values."""
        if not isinstance(call, ast.Call) or self._text(call.func) != "Input" or call.args:
            self._report(call, f"{name}: write Input(default=...) here, with keywords only")
            return {}
        stated = {}
        for keyword in call.keywords:
            key, text = keyword.arg or "**", self._text(keyword).partition("=")[2].strip()
            if key not in _NOTATION:
                self._report(keyword, f"{name}: Input({key}) is not supported")
                continue
            if key in ("default", "choices"):
                text = self._constants.get(text, text)
            pattern, wording = _NOTATION[key]
            if re.fullmatch(pattern, text, re.VERBOSE):
                stated[key] = ast.literal_eval(text)
            else:
                self._report(keyword, f"{name}: {key} must be {wording}, not {text}")
        return stated

    def _text(self, node: ast.AST) -> str:
        return ast.get_source_segment(self._source, node) or ""

    def _report(self, node: ast.AST, message: str) -> None:
        self.violations.append(f"line {getattr(node, 'lineno', 1)}: {message}")


def _field_type(node: ast.expr | None) -> FieldType | None:
    match node:
        case ast.Name(id=name) if name in JSON_TYPES:
            return FieldType(name=name)
        case ast.Subscript(value=ast.Name(id="list" | "List"), slice=item):
            inner = _field_type(item)
            if inner and not inner.repeated and not inner.optional:
                return replace(inner, repeated=True)
        case (
            ast.Subscript(value=ast.Name(id="Optional"), slice=item)
            | ast.BinOp(left=item, op=ast.BitOr(), right=ast.Constant(value=None))
        ):
            inner = _field_type(item)
            return inner and replace(inner, optional=True)
    return None


def schema(signature: Signature) -> dict[str, Any]:
    """Builds the document, its keys in the order in which Cog writes them."""
    inputs: dict[str, Any] = {"properties": {}, "required": [], "title": "Input", "type": "object"}
    output = dict(sorted({"title": "Output", **_json_type(signature.output)}.items()))
    components = {"Input": inputs, "Output": output}
    for order, field in enumerate(signature.inputs):
        inputs["properties"][field.name] = _property(field, order)
        if not field.has_default and not field.type.optional:
            inputs["required"].append(field.name)
        if field.choices:
            values = {"description": "An enumeration.", "enum": list(field.choices)}
            components[field.name] = values | {"title": field.name} | JSON_TYPES[field.type.name]
    if not inputs["required"]:
        del inputs["required"]
    document = json.loads(_ENVELOPE)
    document["components"]["schemas"] = components | document["components"]["schemas"]
    return document


def _property(field: InputField, order: int) -> dict[str, Any]:
    stated: dict[str, Any] = {"x-order": order}
    if field.choices:
        stated["allOf"] = [{"$ref": f"#/components/schemas/{field.name}"}]
    else:
        title = " ".join(word[:1].upper() + word[1:] for word in field.name.split("_"))
        stated |= {"title": title, **_json_type(field.type)}
    if field.has_default:
        stated["default"] = _number(field.default)
    if field.type.optional:
        stated["nullable"] = True
    for name, json_name in JSON_NAMES.items():
        if (value := getattr(field, name)) is not None:
            stated[json_name] = _number(value)
    return dict(sorted(stated.items()))


def _json_type(kind: FieldType) -> dict[str, Any]:
    single = JSON_TYPES[kind.name]
    return {"items": single, "type": "array"} if kind.repeated else single


def _number(value: Any) -> Any:
    """Whole floats become integers, because Go writes 6.0 as 6."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def render(document: dict[str, Any]) -> str:
    """Serialises the document as Go does, which escapes the characters of HTML."""
    text = json.dumps(document, separators=(",", ":"), ensure_ascii=False)
    return re.sub("[<>&\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the schema, or lists what stands in the way and returns 1."""
    parser = argparse.ArgumentParser(description="Write the OpenAPI schema of a Cog predictor.")
    parser.add_argument("predict_py", nargs="?", type=Path, default=Path("predict.py"))
    parser.add_argument("--output", type=Path, default=Path(".cog/openapi_schema.json"))
    options = parser.parse_args(arguments)
    source = options.predict_py.read_text(encoding="utf-8")
    if problems := violations(source):
        print(*(f"{options.predict_py}: {line}" for line in problems), sep="\n", file=sys.stderr)
        return 1
    options.output.parent.mkdir(parents=True, exist_ok=True)
    partial = options.output.with_name(f"{options.output.name}.{os.getpid()}")
    partial.write_text(render(schema(read_signature(source))), encoding="utf-8")
    partial.replace(options.output)  # a server that starts meanwhile never sees half a file
    return 0


if __name__ == "__main__":
    sys.exit(main())
