"""What a class declares, read from the class itself or from its source, with the same result.

A constructor's keyword is an annotated attribute, inherited like any other. A bundled class is read
from its source, so that nothing it imports (torch) is imported.
"""

import ast
import inspect
from collections.abc import Collection, Iterable, Mapping
from importlib import resources
from typing import Any, ClassVar, NamedTuple, get_origin

REQUIRED: Any = ...
"""The default of an argument that has none; pydantic writes it the same way."""


class DeclarationError(ValueError):
    """A class that cannot be declared or registered, in one line.

    >>> issubclass(DeclarationError, ValueError)
    True
    """


class Argument(NamedTuple):
    """A keyword of a constructor.

    >>> Argument(int, REQUIRED).default is ...
    True
    """

    annotation: Any
    default: Any


class Declaration(NamedTuple):
    """What a class declares.

    Attributes:
        implementation: `module:Class`, from where the class is imported.
        documentation: the class's own docstring, without its indentation.
        arguments: the constructor's keywords, a base class's first.
        constants: the values of the class attributes that were asked for.

    >>> Declaration("package.module:Mine", "Mine.", {"size": Argument(int, 3)}, {}).arguments
    {'size': Argument(annotation=<class 'int'>, default=3)}
    """

    implementation: str
    documentation: str
    arguments: dict[str, Argument]
    constants: dict[str, Any]


def from_class(kind: type, root: type, constants: Collection[str]) -> Declaration:
    """The declaration of a class, from the annotations of itself and of its bases below `root`.

    Raises:
        DeclarationError: an option has the name of something else that the class inherits.

    >>> class Base: ...
    >>> class Blur(Base):
    ...     is_linear = True
    ...     width: int = 3
    ...     _cache: dict
    >>> declared = from_class(Blur, Base, ["is_linear"])
    >>> declared.arguments, declared.constants
    ({'width': Argument(annotation=<class 'int'>, default=3)}, {'is_linear': True})
    """
    arguments: dict[str, Argument] = {}
    for ancestor in reversed(kind.__mro__):
        if not issubclass(ancestor, root):
            continue
        annotations = inspect.get_annotations(ancestor, eval_str=True)
        for name in annotations:
            if _is_argument(name, annotations[name]) and name not in arguments:
                _require_free(name, ancestor)
        _inherit(arguments, annotations, vars(ancestor))
    return Declaration(
        f"{kind.__module__}:{kind.__qualname__}",
        inspect.cleandoc(kind.__doc__ or ""),
        arguments,
        {name: getattr(kind, name) for name in constants},
    )


def from_source(
    package: str,
    modules: Iterable[str],
    root: type,
    decorator: str,
    vocabulary: Mapping[str, Any],
    constants: Collection[str],
) -> dict[str, Declaration]:
    """The declarations of the classes that `@decorator("name")` registers, by name, in file order.

    Reads `base` and then `modules` of the package, where a class comes after those that it inherits
    from, the first of which inherits from `root`. Defaults and constants are literals, and
    `vocabulary` has the names that annotations use.

    Raises:
        DeclarationError: a default or a constant is not a literal; with the module and the line.

    >>> from baselines import models, options
    >>> found = from_source(
    ...     "baselines.models", models.MODULES, options.Configured, "model", vars(options), []
    ... )
    >>> found["conv_vae"].implementation, found["conv_vae"].arguments["latent"].default
    ('baselines.models.conv_vae:ConvVae', 20)
    """
    found: dict[str, Declaration] = {}
    read = {root.__name__: Declaration("", "", {}, {})}
    for module in ("base", *modules):
        source = resources.files(package).joinpath(f"{module}.py").read_text(encoding="utf-8")
        for node in ast.parse(source).body:
            if not isinstance(node, ast.ClassDef):
                continue
            bases = [read[b.id] for b in node.bases if isinstance(b, ast.Name) and b.id in read]
            if not bases:
                continue
            declared = _of_node(node, f"{package}.{module}", bases, vocabulary, constants)
            read[node.name] = declared
            for call in node.decorator_list:
                match call:
                    case ast.Call(ast.Name(called), [ast.Constant(str(name))]) if (
                        called == decorator
                    ):
                        found[name] = declared
    return found


def _of_node(
    node: ast.ClassDef,
    module: str,
    bases: list[Declaration],
    vocabulary: Mapping[str, Any],
    constants: Collection[str],
) -> Declaration:
    arguments: dict[str, Argument] = {}
    inherited: dict[str, Any] = {}
    for base in reversed(bases):
        arguments |= base.arguments
        inherited |= base.constants
    annotations: dict[str, Any] = {}
    assigned: dict[str, ast.expr] = {}
    for statement in node.body:
        match statement:
            case ast.AnnAssign(ast.Name(name), annotation, value):
                code = compile(ast.Expression(annotation), module, "eval")
                annotations[name] = eval(code, dict(vocabulary))
                if value is not None:
                    assigned[name] = value
            case ast.Assign([ast.Name(name)], value):
                assigned[name] = value
    wanted = {*arguments, *constants, *(n for n in annotations if _is_argument(n, annotations[n]))}
    values: dict[str, Any] = {}
    for name in wanted & assigned.keys():
        try:
            values[name] = ast.literal_eval(assigned[name])
        except ValueError:
            place = f"{module}:{assigned[name].lineno}"
            raise DeclarationError(f"{place}: '{name}' must have a literal value") from None
    _inherit(arguments, annotations, values)
    return Declaration(
        f"{module}:{node.name}",
        ast.get_docstring(node) or "",
        arguments,
        inherited | {name: values[name] for name in constants if name in values},
    )


def _is_argument(name: str, annotation: Any) -> bool:
    is_constant = annotation is ClassVar or get_origin(annotation) is ClassVar
    return not (is_constant or name.startswith("_"))


def _inherit(
    arguments: dict[str, Argument], annotations: Mapping[str, Any], values: Mapping[str, Any]
) -> None:
    """Add what one class declares to what its bases do."""
    for name in arguments.keys() & values.keys() - annotations.keys():
        arguments[name] = arguments[name]._replace(default=values[name])
    for name, annotation in annotations.items():
        if _is_argument(name, annotation):
            default = arguments[name].default if name in arguments else REQUIRED
            arguments[name] = Argument(annotation, values.get(name, default))


def _require_free(name: str, kind: type) -> None:
    for ancestor in kind.__mro__[1:]:
        if name in vars(ancestor) or name in inspect.get_annotations(ancestor):
            raise DeclarationError(taken(name, kind.__name__))


def taken(option: str, owner: str) -> str:
    """The complaint about an option whose name means something else already.

    >>> taken("forward", "Blur")
    "the option 'forward' of Blur has a name that is taken; choose another"
    """
    return f"the option '{option}' of {owner} has a name that is taken; choose another"
