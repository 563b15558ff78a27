"""Classes that declare their options: the vocabulary of annotations, and what checks the values.

No torch in here: a grid is checked before torch is imported.
"""

from collections.abc import Mapping
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    TypeVar,
    dataclass_transform,
    get_args,
    get_origin,
)
from weakref import WeakKeyDictionary

from pydantic import (
    ConfigDict,
    Field,
    FiniteFloat,
    PydanticSchemaGenerationError,
    TypeAdapter,
    ValidationError,
)

from baselines.declarations import REQUIRED, DeclarationError, from_class
from baselines.sizes import of_size

# -- the vocabulary of options ---------------------------------------------------------------------

Positive = Annotated[FiniteFloat, Field(gt=0)]
Fraction = Annotated[FiniteFloat, Field(ge=0, le=1)]
Share = Annotated[FiniteFloat, Field(gt=0, le=1)]
"""A part of something, not none of it."""
Decay = Annotated[FiniteFloat, Field(ge=0, lt=1)]
"""What a running average keeps of itself at each step."""
FiniteVarianceDf = Annotated[FiniteFloat, Field(gt=2)]
"""Degrees of freedom of a Student-t that has a variance."""
MOST = 1_000_000
"""The largest size or count: beyond what any of them is of use for, and before memory runs out."""
Size = Annotated[int, Field(strict=True, ge=1, le=MOST)]
Count = Annotated[int, Field(strict=True, ge=0, le=MOST)]
"""Strict, because `true` and `"20"` are no numbers of anything."""
Link = Literal["sigmoid", "identity"]
"""What maps a network's output to the mean image."""
Kind = Literal["decoder", "model", "balance"]
Over = Literal["batch", "image", "channel", "pixel"]
"""What shares one σ: everything in a batch, or each image, each channel, each pixel."""


class _Given:
    """Marks an argument that the harness gives and no grid can set."""


T = TypeVar("T")
Given = Annotated[T, _Given]


def is_given(annotation: Any) -> bool:
    """Whether an argument is the harness's to give, and no option of a grid.

    >>> is_given(Given[int]), is_given(Size)
    (True, False)
    """
    return get_origin(annotation) is Annotated and _Given in get_args(annotation)


# -- configured classes ----------------------------------------------------------------------------


@dataclass_transform(kw_only_default=True, eq_default=False)
class Configured:
    """A class whose constructor takes its annotated attributes as keywords and checks them.

    An attribute with an underscore, a `ClassVar`, or one without annotation is no keyword. A
    subclass adds keywords, or changes a default by assigning it.

    Raises:
        ValueError: a value that its annotation does not allow, or an annotation that is no type of
            an option.
        TypeError: an unknown keyword or a missing one.

    >>> class Blur(Configured):
    ...     width: Size = 3
    ...     def setup(self):
    ...         self.taps = 2 * self.width + 1
    >>> Blur(width=5).taps
    11
    >>> Blur(width=0)
    Traceback (most recent call last):
    ValueError: Blur: width: input should be greater than or equal to 1, not 0
    """

    kind: ClassVar[Kind]
    """What it may be registered as."""

    def __init__(self, **arguments: Any) -> None:
        checked = _checked(type(self), arguments)
        super().__init__()
        for name, value in checked.items():
            setattr(self, name, value)
        self.setup()
        # A module with an option's name would be hidden by the option's default.
        if lost := checked.keys() - vars(self).keys():
            raise TypeError(
                f"{type(self).__name__}: `setup` makes a module of the "
                f"option's name '{min(lost)}'; choose another name for it"
            )

    def setup(self) -> None:
        """Make parameters, buffers and layers; the constructor's keywords are attributes by now."""


_Arguments = dict[str, tuple[TypeAdapter[Any], Any]]
_known: WeakKeyDictionary[type, _Arguments] = WeakKeyDictionary()


def arguments_of(kind: type) -> _Arguments:
    """What checks each argument of a class, and its default, by name.

    Raises:
        DeclarationError: an annotation that is no type of an option.

    >>> class Blur(Configured):
    ...     width: Size = 3
    >>> [(name, default) for name, (_, default) in arguments_of(Blur).items()]
    [('width', 3)]
    """
    if kind in _known:
        return _known[kind]
    config = ConfigDict(allow_inf_nan=False)
    found: _Arguments = {}
    for name, (annotation, default) in from_class(kind, Configured, ()).arguments.items():
        try:
            found[name] = TypeAdapter[Any](annotation, config=config), default
        except PydanticSchemaGenerationError:
            raise DeclarationError(
                f"{kind.__name__}: {name}: {annotation} is no type of an option; annotate an "
                "attribute that is none in `setup`, or not at all"
            ) from None
    _known[kind] = found
    return found


def _checked(kind: type[Configured], given: dict[str, Any]) -> dict[str, Any]:
    """The values of all arguments in their order, given or default."""
    possible = arguments_of(kind)
    try:
        given = of_size(getattr(kind, "sizes", {}), given)
    except ValidationError as error:
        raise _refused(kind, "size", given["size"], error) from None
    if unknown := given.keys() - possible.keys():
        raise TypeError(
            f"{kind.__name__} has no option '{min(unknown)}'; possible: {', '.join(possible)}"
        )
    checked = {}
    for name, (adapter, default) in possible.items():
        value = given.get(name, default)
        if value is REQUIRED:
            raise TypeError(f"{kind.__name__}: '{name}' is missing")
        try:
            checked[name] = adapter.validate_python(value)
        except ValidationError as error:
            raise _refused(kind, name, value, error) from None
    if fault := disorder(checked):
        raise ValueError(f"{kind.__name__}: {fault}")
    return checked


def _refused(kind: type, name: str, value: Any, error: ValidationError) -> ValueError:
    problems = dict.fromkeys(problem["msg"] for problem in error.errors())
    message = " or ".join(text[0].lower() + text[1:] for text in problems)
    return ValueError(f"{kind.__name__}: {name}: {message}, not {value!r}")


def disorder(options: Mapping[str, Any]) -> str:
    """What is wrong where an option `min_…` is not below its `max_…`; empty for nothing.

    >>> disorder({"min_scale": 2.0, "max_scale": 1.0})
    'min_scale 2 must be below max_scale 1'
    """
    for name, low in options.items():
        high = options.get(name.replace("min_", "max_", 1)) if name.startswith("min_") else None
        if low is not None and high is not None and low >= high:
            return f"{name} {low:g} must be below {name.replace('min_', 'max_', 1)} {high:g}"
    return ""
